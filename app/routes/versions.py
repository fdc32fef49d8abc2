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
    WebhookView,
)

router = APIRouter(tags=["versions"])


@router.get("/versions", summary="What is running", dependencies=[Depends(query_of(NoQuery))])
async def versions(service: CurrentService) -> Versions:
    facts, snapshot = service.engine.facts, service.history.snapshot
    return Versions(
        version=snapshot.version,
        active_edits=len(snapshot.entries),
        stale_edits=service.history.count_stale(),
        backbone=BackboneView(
            name=service.model_name,
            fingerprint=facts.backbone,
            device=facts.device,
            dtype=facts.dtype,
            quantization=facts.quantization,
        ),
        router=RouterView(
            fingerprint=facts.router,
            tau=facts.tau,
            rho=facts.rho,
            false_fire_rate=facts.false_fire_rate,
            image_key_model=facts.image_key_model,
        ),
        question_encoder=None
        if facts.questions is None
        else QuestionEncoderView(
            fingerprint=facts.questions.fingerprint,
            prefer=facts.questions.prefer,
            rho=facts.questions.rho,
        ),
        eyes=EyesView(fingerprint=facts.eyes) if facts.eyes else None,
        editors={
            name: EditorView(fingerprint=fingerprint, default=name == service.default_editor)
            for name, fingerprint in facts.editors.items()
        },
        webhook=None
        if service.webhook is None
        else WebhookView.model_validate(service.webhook.state),
    )
