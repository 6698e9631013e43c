// The review queue: a verdict is sent in the background while the next text is there already. Every listener is on the
// document, so that no form waits to be bound. Without this script the same forms work.
"use strict";
(() => {
  const AGAIN_MS = 2000;
  const AGAIN = [502, 503, 504];
  const QUIET_MS = 500;
  const part = document.getElementById("review");
  const byId = (id) => document.getElementById(id);
  const form = () => document.querySelector("form.review");
  let sending = Promise.resolve();
  let waiting = 0;
  let failures = 0;
  let earlier = []; // what answers said while others were on their way
  const refused = new Map(); // by item: the form of an answer that was refused meanwhile, with what was entered
  let quietUntil = 0;

  // What is on the screen.

  const prepare = () => {
    for (const each of part.querySelectorAll(".find, .keys-hint, .tokens")) each.hidden = false;
    for (const each of part.querySelectorAll(".tokens")) each.parentElement.querySelector(".plain").hidden = true;
    for (const each of part.querySelectorAll("details.lines")) each.open = false;
    const checked = part.querySelector(".many .choice :checked");
    if (checked) checked.closest(".choice").scrollIntoView({ block: "nearest" });
    if (form() && form().dataset.form === "spans") paint(form());
    const text = part.querySelector(".review-text");
    if (text) text.focus({ preventScroll: true });
  };

  const tellAt = (id, message) => {
    const note = document.createElement("p");
    note.className = "notice bad";
    note.setAttribute("role", "alert");
    note.textContent = message;
    byId(id).replaceChildren(note);
  };

  const tell = (message) => tellAt("review-told", message);
  const tellNothing = () => byId("review-told").replaceChildren();

  const tellFailure = (status) => {
    failures += 1;
    tellAt("review-lost", `The console did not take ${failures} of your answers (${status}). Load the page again to see what is open.`);
  };

  const showFollowing = (consent) => {
    const following = byId("review-following");
    const place = byId("review-item");
    if (following.content.firstElementChild) {
      place.replaceChildren(following.content.cloneNode(true));
      following.content.replaceChildren();
      const box = place.querySelector("[name=consent]");
      if (box) box.checked = consent;
      prepare();
    } else {
      place.innerHTML = '<p role="status">The next text is being fetched.</p>';
    }
  };

  const isTouched = (of) => of.dataset.touched !== undefined || of.querySelector("textarea:focus, input:focus") !== null;

  const take = (html) => {
    const answer = document.createElement("template");
    answer.innerHTML = html;
    showWaiting();
    if (waiting > 0) { // it knows nothing of the answers behind it, so only what it says is shown
      earlier.push(...answer.content.querySelectorAll("#review-notes .said"));
      byId("review-notes").append(...earlier);
      const again = answer.content.querySelector(".failed") && answer.content.querySelector("#review-item form.review");
      if (again) refused.set(again.dataset.item, again);
      return;
    }
    const mine = form();
    let theirs = answer.content.querySelector("#review-item form.review");
    const again = theirs && refused.get(theirs.dataset.item);
    if (again) {
      theirs.replaceWith(again);
      theirs = again;
    }
    refused.clear();
    const isSame = mine && theirs && mine.dataset.item === theirs.dataset.item && !answer.content.querySelector(".failed");
    const isKept = mine && theirs && mine.dataset.item !== theirs.dataset.item && isTouched(mine);
    if (isKept) answer.content.querySelector("#review-following").content.replaceChildren(theirs); // it comes next
    answer.content.querySelector("#review-notes").prepend(...earlier);
    earlier = [];
    for (const id of ["review-notes", "review-following", "review-state"]) byId(id).replaceWith(answer.content.querySelector(`#${id}`));
    showWaiting();
    if (isSame || isKept) return;
    if (mine) quietUntil = performance.now() + QUIET_MS; // keys meant for the text that was there
    byId("review-item").replaceWith(answer.content.querySelector("#review-item"));
    prepare();
  };

  const showWaiting = () => {
    byId("review-unreached").textContent = waiting > 1 ? ` ${waiting} on their way to the console.` : "";
  };

  // Sending, in order; what does not reach the console is sent again.

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  const nameAction = () => [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");

  const post = async (url, body) => {
    const headers = { "HX-Request": "true", "Idempotency-Key": nameAction() };
    let isAway = false;
    for (;;) {
      try {
        const answer = await fetch(url, { method: "POST", body, headers, credentials: "same-origin" });
        const html = await answer.text();
        if (answer.ok && html.includes("review-item")) {
          if (isAway) tellNothing();
          return html;
        }
        if (!answer.ok && !AGAIN.includes(answer.status)) {
          if (isAway) tellNothing();
          tellFailure(answer.status);
          return null;
        }
      } catch { /* it is away: again */ }
      tell("The console does not answer. Your verdict is kept in this page and sent again: leave it open.");
      isAway = true;
      await pause(AGAIN_MS);
    }
  };

  const send = (url, body) => {
    waiting += 1;
    showWaiting();
    sending = sending.then(async () => {
      const html = await post(url, body);
      waiting -= 1;
      if (html !== null) take(html);
      else showWaiting();
    });
  };

  window.addEventListener("beforeunload", (event) => { if (waiting > 0) event.preventDefault(); });

  const stopIfQuiet = (event) => {
    if (performance.now() >= quietUntil || event.key === "Tab" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
  };

  document.addEventListener("keydown", stopIfQuiet, true);
  part.addEventListener("click", stopIfQuiet, true); // a submit button is clicked, too

  const answerIsMissing = (chosen) => chosen.dataset.form === "label"
    && !chosen.querySelector("[name=label]:checked")
    && !(chosen.elements.new_label && chosen.elements.new_label.value.trim());

  document.addEventListener("submit", (event) => {
    const chosen = event.target;
    if (!chosen.matches("#review form")) return;
    event.preventDefault();
    const isVerdict = chosen.matches(".review");
    if (isVerdict && (!event.submitter || event.submitter.value !== "skip") && answerIsMissing(chosen)) {
      tell("No label is chosen: choose one, or skip the text.");
      return;
    }
    const body = new URLSearchParams(new FormData(chosen, event.submitter));
    const box = chosen.elements.consent;
    tellNothing();
    send(chosen.action, body);
    if (isVerdict) showFollowing(Boolean(box && box.checked));
    else byId("review-item").innerHTML = '<p role="status">Your last text comes back.</p>';
  });

  // Finding one of many labels.

  const shownChoices = () => [...form().querySelectorAll(".choice")].filter((each) => !each.hidden);
  const near = () => form().querySelector(".choice.near");

  const markNear = (choice) => {
    for (const each of form().querySelectorAll(".near")) each.classList.remove("near");
    if (choice) {
      choice.classList.add("near");
      choice.scrollIntoView({ block: "nearest" });
    }
  };

  const findLabels = (words) => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    for (const each of form().querySelectorAll(".choice")) {
      const name = each.querySelector("bdi").textContent.toLowerCase();
      each.hidden = !wanted.every((word) => name.includes(word));
    }
    markNear(wanted.length ? shownChoices()[0] : null);
  };

  const leaveFind = (field) => {
    field.value = "";
    findLabels("");
    part.querySelector(".review-text").focus({ preventScroll: true });
  };

  document.addEventListener("input", (event) => {
    const touched = event.target.closest("form.review");
    if (touched) touched.dataset.touched = "";
    if (event.target.matches(".find-label")) findLabels(event.target.value);
    if (event.target.matches("[name=spans]")) paint(form());
    if (event.target.matches("[name=new_label]") && event.target.value) {
      for (const each of form().querySelectorAll("[type=radio]:checked")) each.checked = false;
    }
  });

  const onFindKey = (event) => {
    const choices = shownChoices();
    const at = choices.indexOf(near());
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      markNear(choices[(at + step + choices.length) % choices.length]);
    } else if (event.key === "Enter") {
      const choice = near();
      leaveFind(event.target);
      if (choice) {
        (choice.querySelector("input") || choice).click();
        choice.scrollIntoView({ block: "nearest" });
      }
    } else if (event.key === "Escape") {
      leaveFind(event.target);
    } else {
      return;
    }
    event.preventDefault();
  };

  // Spans: words are selected, labels are given to what is selected. The lines are what is sent.

  const tokensOf = (of) => [...of.querySelectorAll(".token")];
  let anchor = null;

  const readLines = (of) => of.elements.spans.value.split("\n").map((line) => line.trim().match(/^(\d+)\s+(\d+)\s+(\S.*)$/))
    .filter(Boolean).map((found) => ({ start: Number(found[1]), end: Number(found[2]), label: found[3] }));

  const writeLines = (of, spans) => {
    spans.sort((one, other) => one.start - other.start);
    of.elements.spans.value = spans.map((each) => `${each.start} ${each.end} ${each.label}`).join("\n");
    paint(of);
  };

  const rangeOf = (token) => ({ start: Number(token.dataset.start), end: Number(token.dataset.end) });

  const paint = (of) => {
    const spans = readLines(of);
    for (const each of of.querySelectorAll(".tag")) each.remove();
    for (const token of tokensOf(of)) {
      const { start, end } = rangeOf(token);
      const span = spans.find((each) => each.start < end && start < each.end);
      token.classList.toggle("tagged", Boolean(span));
      if (span) token.setAttribute("aria-description", span.label); else token.removeAttribute("aria-description");
      if (span && end >= span.end) {
        const tag = document.createElement("span");
        tag.className = "tag";
        tag.textContent = span.label;
        token.after(tag);
      }
    }
  };

  const select = (of, from, to) => {
    of.dataset.touched = "";
    const tokens = tokensOf(of);
    const [low, high] = [tokens.indexOf(from), tokens.indexOf(to)].sort((one, other) => one - other);
    tokens.forEach((each, at) => {
      const inside = at >= low && at <= high;
      each.classList.toggle("selected", inside);
      each.setAttribute("aria-pressed", String(inside));
    });
  };

  const selected = (of) => {
    const chosen = tokensOf(of).filter((each) => each.classList.contains("selected"));
    return chosen.length ? { start: rangeOf(chosen[0]).start, end: rangeOf(chosen[chosen.length - 1]).end } : null;
  };

  const tag = (of, label) => {
    const range = selected(of);
    if (!range) {
      tell("Select a word first: with the arrows, or with the mouse.");
      return;
    }
    const rest = readLines(of).filter((each) => each.end <= range.start || each.start >= range.end);
    writeLines(of, label === null ? rest : [...rest, { ...range, label }]);
    for (const each of tokensOf(of)) each.classList.remove("selected");
    tellNothing();
  };

  const onTokenKey = (event) => {
    const of = form();
    const tokens = tokensOf(of);
    const at = tokens.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      const next = tokens[Math.min(Math.max(at + step, 0), tokens.length - 1)];
      if (!event.shiftKey || !anchor) anchor = event.shiftKey ? event.target : next;
      select(of, anchor, next);
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Backspace" || event.key === "Delete") {
      tag(of, null);
    } else if (event.key === "Enter") {
      of.querySelector("[value=confirm]").click();
    } else {
      return;
    }
    event.preventDefault();
  };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || !form()) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.target.matches(".find-label")) onFindKey(event);
    else if (event.target.matches(".token")) onTokenKey(event);
    else if (event.key === "Escape" && event.target.matches("textarea, input")) part.querySelector(".review-text").focus();
    else if (form().dataset.form === "spans" && event.key.startsWith("Arrow") && event.target.matches(".review-text, body, main")) {
      const first = form().querySelector(".token");
      if (first) {
        anchor = first;
        select(form(), first, first);
        first.focus();
        event.preventDefault();
      }
    }
  });

  document.addEventListener("pointerdown", (event) => {
    if (!event.target.matches(".token")) return;
    if (!event.shiftKey || !anchor || !anchor.isConnected) anchor = event.target;
    select(form(), anchor, event.target);
  });

  document.addEventListener("pointerover", (event) => {
    if (event.buttons & 1 && anchor && event.target.matches(".token")) select(form(), anchor, event.target);
  });

  document.addEventListener("click", (event) => {
    const choice = event.target.closest("button.choice");
    if (!choice) return;
    tag(form(), choice.dataset.label);
    if (document.activeElement === choice) part.querySelector(".review-text").focus({ preventScroll: true });
  });

  prepare();
})();
