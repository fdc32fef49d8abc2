// Where a picture comes from: dropped, pasted, picked from a file, or one of the samples.

import { byId, fill, h } from "./dom.js";
import { errorBox } from "./parts.js";
import { state, update } from "./state.js";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const MOST_BYTES = 10 * 1024 * 1024;

export function startPicture({ isShown }) {
  const drop = byId("drop");
  const file = byId("picture-file");
  file.onchange = () => {
    if (file.files.length) take(file.files[0]);
    file.value = "";
  };
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (isShown() && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", (event) => {
    if (!drop.contains(event.relatedTarget)) drop.classList.remove("over");
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (isShown() && pasted) take(pasted);
  });
  loadSamples();
}

async function take(file, more = {}) {
  fill(byId("ask-error"));
  if (!TYPES.includes(file.type)) {
    return refuse("This is no picture that can be read.", "Use a PNG, JPEG, WebP or GIF.");
  }
  if (file.size > MOST_BYTES) {
    return refuse("The file is larger than 10 MiB.", "Scale the picture down or compress it.");
  }
  show({ uri: await asDataUri(file), name: file.name || "Pasted picture", ...more });
  if (!more.questions) for (const sample of byId("samples").querySelectorAll("input")) sample.checked = false;
}

function refuse(message, hint) {
  fill(byId("ask-error"), errorBox({ message, hint }));
}

function show(picture) {
  const image = byId("picture");
  image.src = picture.uri;
  image.alt = picture.name;
  image.hidden = false;
  byId("drop-hint").hidden = true;
  byId("picture-name").textContent = picture.name;
  update({ picture });
}

async function loadSamples() {
  const samples = await fetch("console/samples/samples.json").then((answer) => answer.json());
  fill(byId("samples"), samples.map((sample, at) =>
    h("label", { class: "sample", title: sample.name },
      h("input", { type: "radio", name: "sample", value: sample.file, onchange: () => choose(sample) }),
      h("img", { src: `console/samples/${sample.file}`, alt: sample.name, loading: at < 3 ? "eager" : "lazy" }))));
}

async function choose(sample) {
  const data = await fetch(`console/samples/${sample.file}`).then((answer) => answer.blob());
  await take(new File([data], sample.file, { type: "image/png" }), {
    name: sample.name,
    questions: sample.questions,
    answers: sample.answers,
  });
}

// What a sample's question could be answered with instead, to try a correction.
export function suggestedAnswer(question) {
  const { questions = [], answers = [] } = state.picture ?? {};
  return answers[questions.indexOf(question)];
}

export function asDataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
