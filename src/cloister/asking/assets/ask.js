// Drops and previews of pictures, which never leave this page before "Ask" is pressed. Everything works without it.

async function show(drop, file) {
  const previews = drop.querySelector("[data-previews]");
  let picture;
  try { picture = await createImageBitmap(file); } catch { previews.hidden = true; return; }
  const original = drop.querySelector("[data-original]"), small = drop.querySelector("[data-small]");
  const scale = Math.min(1, 480 / Math.max(picture.width, picture.height));
  draw(original, picture, Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale)), "");
  draw(small, picture, Math.min(512, Number(drop.dataset.wide)), Math.min(512, Number(drop.dataset.high)), drop.dataset.mode === "L" ? "grayscale(1)" : "");
  picture.close();
  previews.hidden = false;
}

function draw(canvas, picture, wide, high, filter) {
  canvas.width = wide;
  canvas.height = high;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // transparency is laid on white, as the server does
  pen.fillRect(0, 0, wide, high);
  pen.imageSmoothingQuality = "high";
  if (filter) pen.filter = filter;
  pen.drawImage(picture, 0, 0, wide, high);
}

for (const drop of document.querySelectorAll("[data-drop]")) {
  const input = drop.querySelector("input[type=file]");
  drop.querySelector("[data-drop-words]").hidden = false;
  const changed = () => { if (input.files[0]) show(drop, input.files[0]); else drop.querySelector("[data-previews]").hidden = true; };
  input.addEventListener("change", changed);
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; changed(); }
  });
  changed();
}

for (const form of document.querySelectorAll("form[data-ask]")) {
  form.addEventListener("submit", () => {
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    button.textContent = "Asking…";
  });
}
addEventListener("pageshow", () => { for (const button of document.querySelectorAll("form[data-ask] button[type=submit]")) { button.disabled = false; button.textContent = "Ask"; } });

// A question without its answer: look again, and go there once there is one. Without the script the page does it itself.
async function again() {
  const part = document.querySelector("[data-again]");
  if (!part) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const newer = page.querySelector("[data-again]");
    if (!newer) return location.reload();
    const [left, now] = [part, newer].map((one) => one.querySelector("[data-left]"));
    if (left && now) left.textContent = now.textContent;
  } catch { /* the server is away: the next look may find it */ }
  setTimeout(again, 2000);
}
setTimeout(again, 1500);
