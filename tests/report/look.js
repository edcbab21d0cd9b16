// What is seen of the page. It is evaluated in the browser; its value goes back to the test.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const text = (element) => (element ? element.textContent.trim() : "");
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);

  // The relative luminance of a colour, as WCAG defines it.
  const luminance = (colour) => {
    const [red, green, blue] = numbers(colour).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [luminance(colour), luminance(behind(element))].sort((a, b) => a - b);
    return [`${element.tagName}.${element.getAttribute("class") ?? ""}`, (high + 0.05) / (low + 0.05)];
  };

  // Text of a drawing that reaches out of it is cut off.
  const outside = (drawing) => {
    const box = drawing.getBoundingClientRect();
    return [...drawing.querySelectorAll("text, rect, circle")]
      .filter((part) => {
        const it = part.getBoundingClientRect();
        return it.left < box.left - 1 || it.right > box.right + 1 || it.top < box.top - 1 || it.bottom > box.bottom + 1;
      })
      .map((part) => part.textContent.trim() || part.tagName);
  };
  // Outside of drawings and of what can be scrolled, text is cut off at the edge of the screen.
  const beyond = all("h1, h2, p, dt, dd, li, li *")
    .filter((part) => part.getBoundingClientRect().right > innerWidth + 1)
    .map(text);

  const root = document.documentElement;
  const main = document.querySelector("main");
  return {
    overflow: Math.max(root.scrollWidth, document.body.scrollWidth) - innerWidth > 0 ? root.scrollWidth : 0,
    cut: [...all("svg").flatMap(outside), ...beyond],
    scripts: all("script, img, iframe, [onerror], [onload]").length,
    contrast: all("h1, h2, p, dt, dd, th, td, .layers b, .state, .detail, svg text").map(contrast),
    first: main.firstElementChild.tagName,
    headline: text(document.querySelector("header h1")),
    verdict: all("header dt").map(text),
    layers: all(".layers li").map((layer) => `${text(layer.querySelector("b"))}: ${text(layer.querySelector(".state"))}`),
    bars: all("svg.timeline rect").length,
    critical: all("svg.timeline rect.critical").map((bar) => text(bar.previousElementSibling)),
    legend: all(".legend .critical").length > 0,
    points: all("svg.plot circle.point").length,
  };
})();
