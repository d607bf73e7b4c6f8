// Before the first paint: the look that was chosen last, else the one that the system has.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("comfyui-agent.theme");
  } catch {
    // No storage: the system decides.
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
