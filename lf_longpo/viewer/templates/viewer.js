"use strict";
// Shortcuts: a key clicks the element with that key in aria-keyshortcuts. Without this script, all pages work, too.
(() => {
  const changed = () => [...document.querySelectorAll("textarea.typed")].some(
    (field) => field.value !== field.defaultValue || "unsaved" in field.dataset);
  let leaving = false, saving = false;
  document.documentElement.classList.add("keys");
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const wanted = document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!wanted) return;
    event.preventDefault();
    if (event.repeat || leaving) return; // a key that is held down decides about one pair only
    wanted.focus();
    wanted.click();
  });
  document.addEventListener("submit", (event) => {
    leaving = true;
    saving = [...event.target.elements].some((field) => field.matches("textarea.typed"));
  });
  addEventListener("beforeunload", (event) => {
    if (!changed() || saving) return;
    event.preventDefault(); // the browser asks
    leaving = false;
  });
  addEventListener("pageshow", (event) => {
    leaving = saving = false;
    if (event.persisted && !changed()) location.reload(); // a page from the browser's memory may show an old state
    document.getElementById(location.hash.slice(1))?.querySelector("a")?.focus(); // the pair that the list returns to
  });
})();
