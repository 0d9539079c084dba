// What Gradio's components cannot do by themselves: our own buttons, keys, drawers, tabs, the
// camera. What is pressed goes to the server through a textbox; the one request that is made for
// the page is that of an image by its address (image_address.js).
"use strict";

(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const isChinese = () => document.documentElement.lang === "zh";
  const say = (english, chinese) => (isChinese() ? chinese : english);

  // In the frame of another site a browser may forbid to keep anything.
  const kept = {
    get: (area, key) => {
      try {
        return window[area].getItem(key);
      } catch {
        return null;
      }
    },
    set: (area, key, value) => {
      try {
        if (value === null) window[area].removeItem(key);
        else window[area].setItem(key, value);
      } catch {
        // It is forgotten with the tab.
      }
    },
  };

  // ---- Acts: what the server has to do ----

  // A hidden textbox carries them. One that is written before the last one was taken would take
  // its place, so they wait for each other a moment.
  const waiting = [];
  let number = 0;
  const send = (act) => {
    waiting.push(act);
    if (waiting.length === 1) flush();
  };
  const flush = () => {
    const box = find("#act textarea, #act input");
    if (!box || !waiting.length) return;
    number += 1;
    box.value = JSON.stringify({ ...waiting[0], number });
    box.dispatchEvent(new Event("input", { bubbles: true }));
    setTimeout(() => {
      waiting.shift();
      flush();
    }, 80);
  };
  const placeOf = (element) => {
    if (element.dataset.place !== undefined) return Number(element.dataset.place);
    const lane = element.closest(".lane");
    return lane ? Number(lane.id.replace("lane-", "")) : null;
  };

  // ---- Drawers: settings, what is behind an answer, help ----

  const DRAWERS = { settings: "#settings", panel: "#panel", help: "#help" };
  let opener = null;
  const openDrawer = (name, from) => {
    if (document.body.dataset.drawer === name) return;
    opener = from ?? document.activeElement;
    document.body.dataset.drawer = name;
    label();
    requestAnimationFrame(() => find(`${DRAWERS[name]} .drawer-head button`)?.focus());
  };
  const closeDrawer = () => {
    if (!document.body.dataset.drawer) return false;
    delete document.body.dataset.drawer;
    (opener?.isConnected ? opener : find("#composer textarea"))?.focus();
    return true;
  };
  const toggleDrawer = (name, from) =>
    document.body.dataset.drawer === name ? closeDrawer() : openDrawer(name, from);

  // The server fills the panel and numbers what it has filled: a new number opens it.
  let panelNumber = 0;
  const watchPanel = () => {
    const shown = Number(find("#panel [data-number]")?.dataset.number ?? 0);
    if (shown === panelNumber) return;
    const isNew = shown > panelNumber || shown === 0;
    panelNumber = shown;
    if (shown && isNew) openDrawer("panel", lastPressed);
    else if (!shown && document.body.dataset.drawer === "panel") closeDrawer();
  };

  // The settings open once they are those that were asked for: what is typed into the others'
  // fields before would be lost.
  let wantedScope = null;
  const watchScope = () => {
    if (wantedScope === null) return;
    const shown = find("#settings-head [data-act=scope][aria-pressed=true]")?.dataset.value;
    if (shown !== wantedScope) return;
    wantedScope = null;
    openDrawer("settings", lastPressed);
  };

  // ---- Copying ----

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Only pages from this machine or over HTTPS have a clipboard.
      const box = document.createElement("textarea");
      box.value = text;
      box.className = "sr-only";
      document.body.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
    status.textContent = say("Copied", "已复制");
  };
  const showDone = (button) => {
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };

  // ---- Light and dark ----

  const THEME = "paragone-theme";
  const theme = kept.get("localStorage", THEME);
  if (theme) {
    const apply = () => document.body.classList.toggle("dark", theme === "dark");
    if (document.body) apply();
    else document.addEventListener("DOMContentLoaded", apply);
  }
  const switchTheme = () => {
    const isDark = document.body.classList.toggle("dark");
    kept.set("localStorage", THEME, isDark ? "dark" : "light");
  };

  // ---- The camera ----

  const addToComposer = (file) => {
    const transfer = new DataTransfer();
    transfer.items.add(file);
    const init = { bubbles: true, cancelable: true, clipboardData: transfer };
    find("#composer textarea")?.dispatchEvent(new ClipboardEvent("paste", init));
  };
  const openCamera = async () => {
    const dialog = document.createElement("dialog");
    dialog.className = "camera";
    dialog.setAttribute("aria-label", say("Camera", "摄像头"));
    const message = document.createElement("p");
    const video = document.createElement("video");
    video.playsInline = video.muted = true;
    const take = document.createElement("button");
    take.type = "button";
    take.className = "tool text main";
    take.textContent = say("Take the picture", "拍照");
    take.disabled = true;
    const cancel = document.createElement("button");
    cancel.type = "button";
    cancel.className = "tool text";
    cancel.textContent = say("Cancel", "取消");
    dialog.append(message, video, take, cancel);
    document.body.append(dialog);
    let stream = null;
    dialog.addEventListener("close", () => {
      stream?.getTracks().forEach((track) => track.stop());
      dialog.remove();
      find("#composer textarea")?.focus();
    });
    cancel.addEventListener("click", () => dialog.close());
    take.addEventListener("click", () => {
      const canvas = document.createElement("canvas");
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => {
        addToComposer(new File([blob], "camera.png", { type: "image/png" }));
        dialog.close();
      }, "image/png");
    });
    dialog.showModal();
    try {
      if (!navigator.mediaDevices) throw new Error("insecure");
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
      video.srcObject = stream;
      await video.play();
      take.disabled = false;
    } catch (error) {
      message.textContent =
        error.message === "insecure"
          ? say(
              "Browsers give pages a camera only over HTTPS, or from this machine.",
              "只有通过 HTTPS 或本机访问时，浏览器才允许使用摄像头。",
            )
          : say(`The camera cannot be used: ${error.message}`, `无法使用摄像头：${error.message}`);
    }
  };

  // ---- An image by its address ----

  const askForAddress = () =>
    askForImageAddress(say, (file) => {
      addToComposer(file);
      find("#composer textarea")?.focus();
    });

  // ---- A picture in full ----

  const showPicture = (picture) => {
    const dialog = document.createElement("dialog");
    dialog.className = "picture-dialog";
    dialog.setAttribute("aria-label", picture.alt || say("Image", "图片"));
    const image = document.createElement("img");
    image.src = picture.src.replace(/\/small$/, "");
    image.alt = picture.alt;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "tool icon-close";
    close.setAttribute("aria-label", say("Close", "关闭"));
    dialog.append(image, close);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  };

  // ---- On a phone: one column at a time ----

  let shownTab = 0;
  const showTabs = () => {
    const tabs = all("[data-tab]");
    if (shownTab >= tabs.length) shownTab = 0;
    tabs.forEach((tab, place) => {
      const isShown = place === shownTab;
      if (tab.getAttribute("aria-selected") !== String(isShown)) {
        tab.setAttribute("aria-selected", String(isShown));
        tab.tabIndex = isShown ? 0 : -1;
      }
    });
    all(".lane").forEach((lane, place) => lane.classList.toggle("shown", place === shownTab));
    find("#columns")?.classList.toggle("many", tabs.length > 4);
  };
  const showTab = (place, { focus = false } = {}) => {
    shownTab = place;
    showTabs();
    if (focus) find(`[data-tab="${place}"]`)?.focus();
  };

  // ---- Clicks ----

  let lastPressed = null;
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const button = target.closest("button, a");
    if (button?.disabled) return;
    if (button) lastPressed = button;
    const act = target.closest("[data-act]");
    if (act) {
      const from = act.dataset.from ? document.getElementById(act.dataset.from) : null;
      const value = from ? from.value : (act.dataset.value ?? "");
      send({ act: act.dataset.act, place: placeOf(act), value });
      if (act.dataset.act === "settings") {
        wantedScope = String(placeOf(act));
        watchScope();
      }
      if (act.dataset.act === "write-note") closeDrawer();
      if (act.dataset.act === "example") find("#composer textarea")?.focus();
      return;
    }
    const edit = target.closest("button.edit-turn");
    if (edit) {
      send({ act: "edit", place: null, value: edit.value });
      find("#composer textarea")?.focus();
      return;
    }
    const again = target.closest("button.ask-again");
    if (again) {
      send({ act: "retry", place: placeOf(again), value: "" });
      return;
    }
    const tab = target.closest("[data-tab]");
    if (tab) {
      showTab(Number(tab.dataset.tab));
      return;
    }
    const own = target.closest("[data-do]");
    if (own) {
      if (own.dataset.do === "theme") switchTheme();
      if (own.dataset.do === "drawer") toggleDrawer(own.dataset.value, own);
      if (own.dataset.do === "close") closeDrawer();
      if (own.dataset.do === "camera") openCamera();
      if (own.dataset.do === "address") askForAddress();
      if (own.dataset.do === "copy") {
        copy(own.dataset.copy);
        showDone(own);
      }
      if (own.dataset.do === "language") {
        event.preventDefault();
        document.cookie = `paragone_language=${own.hreflang}; path=/; max-age=31536000; samesite=lax`;
        const address = new URL(window.location.href);
        address.searchParams.delete("lang");
        window.location.assign(address);
      }
      return;
    }
    const picture = target.closest("img.picture, #panel figure img");
    if (picture) showPicture(picture);
  });

  // ---- Keys ----

  const visibleLanes = () => all(".lane").filter((lane) => lane.checkVisibility?.() ?? true);
  const currentLane = () =>
    document.activeElement?.closest?.(".lane") ?? visibleLanes()[0] ?? null;
  const focusLane = (place) => {
    const isPhone = find("#tabs")?.checkVisibility?.();
    if (isPhone) showTab(place);
    const lane = document.getElementById(`lane-${place}`);
    if (lane?.checkVisibility?.()) lane.focus();
  };
  const stepLane = (step) => {
    const count = all("[data-tab]").length || 1;
    const lane = document.activeElement?.closest?.(".lane");
    const place = lane ? Number(lane.id.replace("lane-", "")) : step > 0 ? -1 : count;
    focusLane((place + step + count) % count);
  };
  const isTyping = (element) =>
    element instanceof Element && element.matches("input, textarea, select, [contenteditable]");
  const ALT = {
    KeyN: () => send({ act: "new", place: null, value: "" }),
    KeyS: () => toggleDrawer("settings"),
    KeyU: () => find("dialog[open]") || find(".compose-tools [data-do=address]")?.click(),
    KeyR: () => find("[data-act=retry]:not([disabled])", currentLane() ?? document)?.click(),
    KeyC: () => find(".answer-tools [data-do=copy]:not([disabled])", currentLane() ?? document)?.click(),
    ArrowRight: () => stepLane(1),
    ArrowLeft: () => stepLane(-1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    if (event.key === "Escape") {
      if (find("dialog[open], ul.options, .image-preview")) return;
      if (!closeDrawer()) find("#composer button.stop-button")?.click();
      return;
    }
    if (event.altKey && !event.ctrlKey && !event.metaKey) {
      const digit = /^Digit([1-6])$/.exec(event.code);
      const act = digit ? () => focusLane(Number(digit[1]) - 1) : ALT[event.code];
      if (act) {
        event.preventDefault();
        act();
      }
      return;
    }
    const tab = event.target instanceof Element ? event.target.closest("[data-tab]") : null;
    if (tab && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      const count = all("[data-tab]").length;
      const step = event.key === "ArrowRight" ? 1 : -1;
      showTab((Number(tab.dataset.tab) + step + count) % count, { focus: true });
      return;
    }
    if (event.ctrlKey || event.metaKey || isTyping(event.target)) return;
    if (event.key === "/") {
      event.preventDefault();
      find("#composer textarea")?.focus();
    } else if (event.key === "?") {
      event.preventDefault();
      toggleDrawer("help");
    }
  });

  // ---- A question that is not sent yet survives a reload ----

  const DRAFT = "paragone-draft";
  let knownComposer = null;
  const keepDraft = () => {
    const box = find("#composer textarea");
    if (!box) return;
    if (box !== knownComposer) {
      knownComposer = box;
      const draft = kept.get("sessionStorage", DRAFT);
      if (draft && !box.value && !new URL(window.location.href).searchParams.has("prompt")) {
        box.value = draft;
        box.dispatchEvent(new Event("input", { bubbles: true }));
      }
      box.addEventListener("input", () => kept.set("sessionStorage", DRAFT, box.value));
    } else if (!box.value) {
      kept.set("sessionStorage", DRAFT, null);
    }
  };

  // ---- Names for what Gradio leaves without one, and for who listens to the page ----

  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const label = () => {
    set(find("#composer textarea"), "aria-label", say("Question to all columns", "向所有列提问"));
    if (window.matchMedia("(max-width: 760px)").matches) {
      set(find("#composer textarea"), "placeholder", say("Ask all columns", "向所有列提问"));
    }
    set(find("#composer .upload-button"), "aria-label", say("Add images", "添加图片"));
    for (const [name, selector] of Object.entries(DRAWERS)) {
      const drawer = find(selector);
      if (!drawer) continue;
      const isOpen = document.body.dataset.drawer === name;
      set(drawer, "role", "dialog");
      set(drawer, "aria-label", find("h2", drawer)?.textContent || name);
      drawer.toggleAttribute("inert", !isOpen);
      drawer.classList.toggle("open", isOpen);
    }
    all(".lane").forEach((lane, place) => {
      const name = say(`Column ${place + 1}`, `第 ${place + 1} 列`);
      set(lane, "role", "region");
      set(lane, "aria-label", name);
      set(lane, "tabindex", "-1");
      const log = find("[role=log]", lane);
      set(log, "aria-label", say(`Answers of column ${place + 1}`, `第 ${place + 1} 列的回答`));
      // Columns that are read out word by word, all at once, would be noise.
      set(log, "aria-live", "off");
      set(log, "tabindex", "0");
      set(find(".model input", lane), "aria-label", say(`Model of column ${place + 1}`, `第 ${place + 1} 列的模型`));
    });
    // Gradio names each message by its source, tags and all.
    all(".chat [data-testid][aria-label]").forEach((part) => part.removeAttribute("aria-label"));
    set(find("#notice"), "aria-live", "polite");
  };

  // A screen reader hears that a column has ended.
  const status = document.createElement("div");
  status.setAttribute("role", "status");
  status.className = "sr-only";
  const states = new Map();
  const announce = () => {
    if (!status.isConnected) document.body?.append(status);
    all(".lane").forEach((lane, place) => {
      const state = find(".figures", lane)?.dataset.state;
      const before = states.get(place);
      states.set(place, state);
      if (["waiting", "streaming"].includes(before) && ["done", "stopped", "failed"].includes(state)) {
        const model = find(".model input", lane)?.value;
        const name = say(`Column ${place + 1}`, `第 ${place + 1} 列`);
        const ends = { done: "完成", stopped: "已停止", failed: "失败" };
        status.textContent = `${name}, ${model}: ${say(state, ends[state])}`;
      }
    });
  };

  // What replaces a button that had the focus gets it in turn.
  let focused = null;
  document.addEventListener("focusin", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-act], [data-do]") : null;
    focused = button && {
      place: placeOf(button),
      selector: ["act", "do", "value"]
        .filter((key) => button.dataset[key] !== undefined)
        .map((key) => `[data-${key}="${CSS.escape(button.dataset[key])}"]`)
        .join(""),
    };
  });
  const keepFocus = () => {
    if (!focused || (document.activeElement && document.activeElement !== document.body)) return;
    const again = all(focused.selector).find((button) => placeOf(button) === focused.place);
    again?.focus({ preventScroll: true });
  };

  // The address names the conversation, so that a reload finds it again.
  const OPENING = ["models", "model", "prompt", "seed", "system", "lang"];
  const showConversation = () => {
    const identity = find("#address [data-conversation]")?.dataset;
    if (!identity) return;
    set(document.documentElement, "lang", identity.language);
    const address = new URL(window.location.href);
    if (address.searchParams.get("c") === identity.conversation) return;
    OPENING.forEach((name) => address.searchParams.delete(name));
    address.searchParams.set("c", identity.conversation);
    window.history.replaceState(window.history.state, "", address);
  };

  let isScheduled = false;
  new MutationObserver(() => {
    if (isScheduled) return;
    isScheduled = true;
    requestAnimationFrame(() => {
      isScheduled = false;
      keepDraft();
      showConversation();
      label();
      showTabs();
      announce();
      watchPanel();
      watchScope();
      keepFocus();
    });
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
