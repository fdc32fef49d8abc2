// "Report it": what somebody who may not correct an answer, or would rather not, says of it.

import { toast } from "./dialogs.js";
import { busy, byId, fill } from "./dom.js";
import { report } from "./feedback_api.js";
import { errorBox } from "./parts.js";
import { state } from "./state.js";

export function startReporting({ answers }) {
  const dialog = byId("report-dialog");
  byId("report-button").onclick = () => {
    byId("report-form").reset();
    fill(byId("report-problem"));
    byId("report-about").textContent = `"${state.question}" is answered "${answers.current.text}".`;
    dialog.showModal();
    byId("report-correction").focus();
  };
  byId("report-cancel").onclick = () => dialog.close();
  byId("report-form").onsubmit = (event) => {
    event.preventDefault();
    busy(byId("report-send"), () => send(answers.current.id, dialog));
  };
}

async function send(answerId, dialog) {
  const correction = byId("report-correction").value.trim();
  const comment = byId("report-comment").value.trim();
  try {
    await report({
      answer_id: answerId,
      verdict: byId("report-verdict").value,
      ...(correction && { correction }),
      ...(comment && { comment }),
    });
    dialog.close();
    toast("Reported. It waits under Review.");
  } catch (error) {
    fill(byId("report-problem"), errorBox(error));
  }
}
