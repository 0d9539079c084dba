// What every plain view shares: the theme of the Compare page, and calls to our own server.
function keptTheme() {
  try {
    return localStorage.getItem("paragone-theme");
  } catch {
    return null; // a browser may forbid it in the frame of another site
  }
}
if ((keptTheme() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark")
  document.documentElement.classList.add("dark");

async function call(method, path, body) {
  const isForm = body instanceof FormData;
  const reply = await fetch(path, {
    method,
    headers: isForm || body === undefined ? {} : { "content-type": "application/json" },
    body: isForm ? body : body === undefined ? undefined : JSON.stringify(body),
  });
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error((content.error && content.error.message) || reply.statusText);
  return content;
}

addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time"))
    time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, {
      dateStyle: "medium",
      timeStyle: "short",
    });
});
