// What Python has rendered, kept up to date while the page is open. Without this script everything still works.
import { on } from "/_state/client.js";

const root = document.documentElement;

on("prefs.theme", (theme) => { root.dataset.theme = theme; });
on("prefs.drawer", (open) => { root.dataset.drawer = open ? "open" : "shut"; });

// The drawer says what has changed: here, in another tab, or on the server.
const log = document.querySelector(".log");
if (log) on("*", (value, name) => {
  const line = document.createElement("li");
  line.textContent = `${name} is now ${JSON.stringify(value)}`;
  log.prepend(line);
  log.children[5]?.remove();
  const shown = document.querySelector(`[data-state-bind="${name}"]`);
  shown?.classList.remove("changed");
  requestAnimationFrame(() => shown?.classList.add("changed"));
});
