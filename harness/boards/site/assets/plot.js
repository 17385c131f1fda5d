// What pictures share: the room they have, axes with round numbers, and the shapes of points.
"use strict";

(() => {
  const { svg } = Harness;
  Harness.SHAPES = ["circle", "square", "diamond", "triangle"];
  Harness.SIGNS_OF_SHAPES = ["●", "■", "◆", "▲"];

  // A picture is drawn for the width it has, so that its words stay as large as those around it.
  Harness.room = () => Math.max(300, Math.min(760, document.getElementById("main").clientWidth || 760));

  Harness.axis = (values, from, to, log) => {
    let low = Math.min(...values),
      high = Math.max(...values);
    if (log) {
      low = Math.log10(low);
      high = Math.log10(high);
    }
    const room = (high - low) * 0.08 || (log ? 0.3 : Math.abs(high) * 0.1 || 1);
    low -= room;
    high += room;
    const at = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
    return { at, ticks: log ? decades(low, high) : even(low, high) };
  };

  function even(low, high) {
    const rough = (high - low) / 5,
      size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= rough);
    const ticks = [];
    for (let t = Math.ceil(low / step); t * step <= high; t += 1) ticks.push(t * step);
    return ticks;
  }

  function decades(low, high) {
    const steps = high - low > 3 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    const ticks = [];
    for (let e = Math.floor(low); e <= high; e += 1) {
      for (const m of steps) {
        const t = m * 10 ** e;
        if (Math.log10(t) >= low && Math.log10(t) <= high) ticks.push(t);
      }
    }
    return ticks.length > 2 ? ticks : even(10 ** low, 10 ** high);
  }

  // Without those whose words would run into the ones before.
  Harness.apart = (x) => {
    let last = -Infinity;
    return x.ticks.filter((t) => x.at(t) - last > 64 && ((last = x.at(t)), true));
  };

  Harness.shape = (kind, x, y) => {
    if (kind === "circle") return svg("circle", { cx: x, cy: y, r: 5 });
    if (kind === "square") return svg("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9 });
    const d = kind === "diamond" ? `M${x} ${y - 6.5}l6.5 6.5l-6.5 6.5l-6.5-6.5z` : `M${x} ${y - 6}l6 10.5h-12z`;
    return svg("path", { d });
  };
})();
