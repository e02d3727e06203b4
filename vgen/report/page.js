"use strict";

// Videos play while they can be seen; who asked for less motion gets controls instead.
(() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const videos = document.querySelectorAll("video");
  if (calm) {
    videos.forEach((video) => { video.autoplay = false; video.controls = true; video.pause(); });
    return;
  }
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) target.play().catch(() => { target.controls = true; });
      else target.pause();
    }
  }, { rootMargin: "200px" });
  videos.forEach((video) => seen.observe(video));
})();

// The value of every curve under the pointer.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  for (const svg of document.querySelectorAll(".chart svg")) {
    let lines = null;
    const against = svg.parentElement, figure = svg.closest(".chart"), unit = against.dataset.unit;
    const cursor = svg.querySelector(".cursor");
    svg.addEventListener("pointermove", (event) => {
      lines ??= JSON.parse(against.dataset.hover);
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      let place = null, at = null;
      tip.replaceChildren();
      for (const [label, colour, points] of lines) {
        let nearest = points[0];
        for (const point of points) if (Math.abs(point[0] - x) < Math.abs(nearest[0] - x)) nearest = point;
        if (!nearest) continue;
        if (at === null || Math.abs(nearest[0] - x) < Math.abs(at - x)) [at, place] = nearest;
        const row = document.createElement("div");
        const key = document.createElement("i");
        key.className = `key c${colour}`;
        row.append(key, `${label} ${nearest[2] ?? "not finite"}`);
        tip.append(row);
      }
      if (at === null) return;
      const said = place.toLocaleString("en");
      tip.prepend(unit === "step" ? `step ${said}` : `${said} ${unit}`);
      cursor.setAttribute("x1", at);
      cursor.setAttribute("x2", at);
      cursor.style.visibility = "visible";
      figure.append(tip);
      const outer = figure.getBoundingClientRect();
      const left = event.clientX - outer.left + 14;
      tip.style.left = `${Math.max(4, Math.min(left, outer.width - tip.offsetWidth - 6))}px`;
      tip.style.top = `${box.top - outer.top + 8}px`;
    });
    svg.addEventListener("pointerleave", () => { tip.remove(); cursor.style.visibility = "hidden"; });
  }
})();
