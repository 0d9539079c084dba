// Asks for the address of an image, and has our own server fetch it: the browser asks no other host.
function askForImageAddress(say, add) {
  const dialog = document.createElement("dialog");
  dialog.className = "image-address";
  dialog.setAttribute("aria-label", say("Image by its address", "通过网址添加图片"));
  const form = document.createElement("form");
  const label = document.createElement("label");
  label.textContent = say("Address of an image", "图片网址");
  const input = document.createElement("input");
  Object.assign(input, { type: "url", required: true, maxLength: 4000, autocomplete: "off" });
  input.placeholder = "https://example.org/picture.jpg";
  const problem = document.createElement("p");
  problem.className = "problem";
  problem.setAttribute("role", "alert");
  const button = (type, text, main) => {
    const made = document.createElement("button");
    Object.assign(made, { type, textContent: text });
    made.className = main ? "tool text main primary" : "tool text";
    return made;
  };
  const fetchIt = button("submit", say("Add the image", "添加图片"), true);
  const cancel = button("button", say("Cancel", "取消"), false);
  const row = document.createElement("div");
  row.append(fetchIt, cancel);
  label.append(input);
  form.append(label, problem, row);
  dialog.append(form);
  document.body.append(dialog);
  const opener = document.activeElement;
  const hangUp = new AbortController();
  let isAdded = false;
  dialog.addEventListener("close", () => {
    hangUp.abort();
    dialog.remove();
    if (!isAdded) opener?.focus();
  });
  cancel.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const address = input.value.trim();
    fetchIt.disabled = true;
    problem.textContent = "";
    fetchIt.textContent = say("Fetching …", "正在获取 …");
    try {
      const reply = await fetch("./fetch-image", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ address }),
        signal: hangUp.signal,
      });
      if (!reply.ok) {
        const content = await reply.json().catch(() => ({}));
        throw new Error(content.error?.message || reply.statusText);
      }
      const image = await reply.blob();
      const end = decodeURI(new URL(address).pathname).split("/").pop().replace(/\.\w*$/, "");
      const name = `${end || "image"}.${image.type.split("/").pop()}`;
      isAdded = true;
      dialog.close();
      add(new File([image], name, { type: image.type }));
    } catch (error) {
      if (hangUp.signal.aborted) return;
      problem.textContent = say("", "无法获取图片：") + error.message;
      fetchIt.disabled = false;
      fetchIt.textContent = say("Add the image", "添加图片");
      input.select();
      input.focus();
    }
  });
  dialog.showModal();
}
