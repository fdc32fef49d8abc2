"""What is running: the version of the edits, and the weights that serve them."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.deps import CurrentService, query_of
from app.schemas.base import NoQuery
from app.schemas.versions import (
    BackboneView,
    EditorView,
    EyesView,
    QuestionEncoderView,
    RouterView,
    Versions,
)

router = APIRouter(tags=["versions"])


@router.get("/versions", summary="What is running", dependencies=[Depends(query_of(NoQuery))])
async def versions(service: CurrentService) -> Versions:
    model, snapshot = service.engine.model, service.history.snapshot
    placement, router_ = model.backbone.placement, model.router
    return Versions(
        version=snapshot.version,
        active_edits=len(snapshot.entries),
        stale_edits=service.history.count_stale(),
        backbone=BackboneView(
            name=service.model_name,
            fingerprint=model.backbone_fingerprint,
            device=str(placement.device),
            dtype=placement.dtype_name,
            quantization=placement.quantization,
        ),
        router=RouterView(
            fingerprint=model.router_fingerprint,
            tau=router_.tau,
            rho=router_.rho,
            false_fire_rate=router_.false_fire_rate,
            image_key_model=router_.image_key_model,
        ),
        question_encoder=None
        if model.questions is None
        else QuestionEncoderView(
            fingerprint=model.questions.fingerprint,
            prefer=router_.thresholds.prefer,
            rho=model.questions.line.rho[router_.thresholds.prefer],
        ),
        eyes=EyesView(fingerprint=model.eyes_fingerprint) if model.eyes_fingerprint else None,
        editors={
            name: EditorView(fingerprint=fingerprint, default=name == service.default_editor)
            for name, fingerprint in model.editor_fingerprints.items()
        },
    )
