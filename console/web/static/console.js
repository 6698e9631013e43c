// Keys of the console. An element with data-key="d" or data-key="g d" is clicked, chosen or focused by these keys.
// Keys do nothing while somebody types, in a dialog, with Ctrl, Alt or Meta, or when they are switched off. Esc leaves a field.
"use strict";
(() => {
  const WAIT_MS = 1500;
  const STORED = "murmura.keys";
  const TYPING = "input:not([type=radio]):not([type=checkbox]):not([type=submit]):not([type=button]), textarea, select, [contenteditable]";
  let first = "";
  let firstAt = 0;

  const areOn = () => {
    try { return localStorage.getItem(STORED) !== "off"; } catch { return true; }
  };
  const isShown = (element) => element.getClientRects().length > 0 && !element.disabled;
  const keyed = () => [...document.querySelectorAll("[data-key]")].filter(isShown);

  const use = (element) => {
    if (element.matches("input[type=radio], input[type=checkbox]")) {
      element.focus();
      element.click();
    } else if (element.matches(TYPING)) {
      element.focus();
    } else {
      element.click();
    }
  };

  const describe = (element) => {
    if (element.dataset.help) return element.dataset.help;
    const label = element.labels && element.labels[0] ? element.labels[0] : element;
    const copy = label.cloneNode(true);
    copy.querySelectorAll("kbd").forEach((each) => each.remove());
    return copy.textContent.trim().replace(/\s+/g, " ");
  };

  const fillHelp = () => {
    const list = document.getElementById("key-list");
    list.replaceChildren();
    const seen = new Set();
    for (const element of keyed()) {
      const key = element.dataset.key;
      if (seen.has(key)) continue;
      seen.add(key);
      const term = document.createElement("dt");
      const mark = document.createElement("kbd");
      mark.textContent = key;
      term.append(mark);
      const meaning = document.createElement("dd");
      meaning.textContent = describe(element);
      list.append(term, meaning);
    }
  };

  const showHelp = () => {
    fillHelp();
    const box = document.getElementById("keys-on");
    box.checked = areOn();
    document.getElementById("keys").showModal();
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && event.target.closest(TYPING) && !document.querySelector("dialog[open]")) {
      document.getElementById("main").focus({ preventScroll: true });
      return;
    }
    if (!areOn() || event.target.closest(TYPING) || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
    const now = performance.now();
    const both = first && now - firstAt < WAIT_MS ? `${first} ${event.key}` : "";
    const elements = keyed();
    const found = elements.find((each) => each.dataset.key === both)
      || elements.find((each) => each.dataset.key === event.key);
    first = "";
    if (found) {
      event.preventDefault();
      if (!event.repeat) use(found);
    } else if (elements.some((each) => each.dataset.key.startsWith(`${event.key} `))) {
      first = event.key;
      firstAt = now;
    }
  });

  // What is renewed every few seconds stays as it is where the answer lacks it, as that of an error does, and while the second
  // key of two is awaited, which is of what is on the screen.
  let focused = document.body;
  let renewed;
  const away = document.getElementById("away");
  document.addEventListener("htmx:before:swap", (event) => {
    const main = event.detail.tasks.find((each) => each.type === "main");
    const isThere = Boolean(main && main.fragment.querySelector("*"));
    away.hidden = isThere;
    if (!isThere || (first && performance.now() - firstAt < WAIT_MS)) event.preventDefault();
    focused = document.activeElement;
    renewed = focused.closest("[hx-get][id]")?.id;
  });
  // The focus of what has left, as a button with its row, goes to the part that was renewed, in place of the page's beginning.
  document.addEventListener("htmx:after:swap", () => {
    if (!renewed || focused.isConnected) return;
    const part = document.getElementById(renewed);
    if (!part) return;
    part.focus({ preventScroll: true });
  });
  document.addEventListener("htmx:error", () => { away.hidden = false; });

  const button = document.getElementById("show-keys");
  button.hidden = false;
  button.addEventListener("click", showHelp);
  document.getElementById("keys-on").addEventListener("change", (event) => {
    try { localStorage.setItem(STORED, event.target.checked ? "on" : "off"); } catch { /* it stays as it is */ }
  });
})();
