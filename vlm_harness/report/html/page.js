// What every page has: its data, its theme, and elements made without markup.
"use strict";

const page = {
  /** The data, unpacked; null where a browser cannot. */
  async load() {
    const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  },

  /** An element. Texts are texts: nothing of them is read as markup. */
  element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") Object.entries(value).forEach(([event, f]) => made.addEventListener(event, f));
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.flat().filter((child) => child != null));
    return made;
  },

  /** A drawing as one picture: it is read out by its name alone; labels of its groups would be no valid ARIA. */
  picture(svg) {
    svg.setAttribute("role", "img");
    for (const part of svg.querySelectorAll("[aria-label]")) {
      part.dataset.mark = part.getAttribute("aria-label");
      part.removeAttribute("aria-label");
    }
    return svg;
  },

  /** What stands behind # in the address, as far as it is settings; a section's name is none. */
  settings() {
    return Object.fromEntries([...new URLSearchParams(location.hash.slice(1))].filter(([, value]) => value));
  },

  /** Put settings behind #, without those that are empty. */
  set(settings, remember = false) {
    const kept = Object.entries(settings).filter(([, value]) => value);
    const hash = "#" + new URLSearchParams(kept);
    if (hash === location.hash || (hash === "#" && !location.hash)) return;
    history[remember ? "pushState" : "replaceState"](null, "", hash === "#" ? location.pathname + location.search : hash);
  },
};

(() => {
  const button = document.getElementById("theme");
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-pressed", String(theme === "dark"));
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  apply(kept() || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!kept()) apply(system.matches ? "dark" : "light"); });
  button.addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", theme); } catch { /* private mode: for this page alone */ }
    apply(theme);
  });
})();
