// The few things that Gradio's components cannot do by themselves. No request is made from here.
"use strict";

(() => {
  const find = (selector) => document.querySelector(selector);

  // A hidden textbox carries a click on the gallery to the server. The counter makes the second
  // click on the same example a change too.
  let picks = 0;
  const pick = (value) => {
    const box = find("#picked-example textarea, #picked-example input");
    if (!box) return;
    picks += 1;
    box.value = `${value} ${picks}`;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    find("#composer textarea")?.focus();
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const picked = target?.closest("[data-pick]");
    if (picked) pick(picked.dataset.pick);
    if (target?.closest("#theme")) document.body.classList.toggle("dark");
  });

  // Esc stops all columns, unless something that Esc closes is open.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    if (find("ul.options, .image-preview, [role=dialog]")) return;
    find("#composer button.stop-button")?.click();
  });

  // Names for controls that Gradio leaves without one.
  const label = () => {
    find("#theme")?.setAttribute("aria-label", "Switch between light and dark");
    find("#composer textarea")?.setAttribute("aria-label", "Question to all columns");
    document.querySelectorAll(".lane").forEach((lane, number) => {
      lane.querySelector("button.stop")?.setAttribute("aria-label", `Stop column ${number + 1}`);
      lane.querySelector("[role=log]")?.setAttribute("aria-label", `Answers of column ${number + 1}`);
      lane.querySelectorAll(".chat button:not([aria-label])").forEach((button) => {
        if (!button.textContent.trim()) button.setAttribute("aria-label", "Enlarge the image");
      });
    });
  };
  // A screen reader hears that a column has ended, and not every word of all columns at once.
  const status = document.createElement("div");
  status.setAttribute("role", "status");
  status.className = "sr-only";
  const states = new Map();
  const announce = () => {
    if (!status.isConnected) document.body?.append(status);
    document.querySelectorAll(".lane").forEach((lane, number) => {
      lane.querySelector("[role=log]")?.setAttribute("aria-live", "off");
      const state = lane.querySelector(".figures")?.dataset.state;
      const before = states.get(number);
      states.set(number, state);
      if (["waiting", "streaming"].includes(before) && ["done", "stopped", "failed"].includes(state)) {
        status.textContent = `Column ${number + 1}, ${lane.querySelector(".model input")?.value}: ${state}`;
      }
    });
  };

  // The address names the conversation, so that a reload finds it again.
  const showConversation = () => {
    const id = find("#address [data-conversation]")?.dataset.conversation;
    const address = new URL(window.location.href);
    if (!id || address.searchParams.get("c") === id) return;
    address.searchParams.delete("models");
    address.searchParams.set("c", id);
    window.history.replaceState(window.history.state, "", address);
  };
  let isScheduled = false;
  new MutationObserver(() => {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => {
      isScheduled = false;
      label();
      announce();
      showConversation();
    });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
