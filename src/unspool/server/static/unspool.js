// A file dropped on the reading form goes into its file field; picking one empties the text.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const drop = document.getElementById("drop");
  if (!drop) return;
  const file = document.getElementById("file");
  const text = document.getElementById("text");
  const mark = (on) => drop.classList.toggle("over", on);
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); mark(true); });
  }
  drop.addEventListener("dragleave", () => mark(false));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    if (event.dataTransfer.files.length) {
      file.files = event.dataTransfer.files;
      text.value = "";
    } else {
      text.value = event.dataTransfer.getData("text/plain");
    }
  });
  file.addEventListener("change", () => { if (file.files.length) text.value = ""; });
});
// The evidence begins where most of the answer stands.
document.addEventListener("htmx:afterSettle", () => {
  const best = document.querySelector(".evidence mark.best");
  if (best) best.parentElement.scrollTop = best.offsetTop - best.parentElement.offsetTop - 40;
});
// An answer that is no success is a page with the reason; show it instead of nothing.
document.addEventListener("htmx:beforeSwap", (event) => {
  const kind = event.detail.xhr.getResponseHeader("Content-Type") || "";
  if (event.detail.xhr.status >= 400 && kind.startsWith("text/html")) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});
