// The forest: every difference to the baseline as a point with its interval, a picture a column, best first.
"use strict";

(() => {
  const { el, svg } = Harness;
  const LINE = 22,
    RIGHT = 16,
    TOP = 8,
    BOTTOM = 44;

  // groups: [{title, column, lines: [[label, d], ...]}], d as in an entry. The pictures, and what is in none of them.
  Harness.forest = (groups) => {
    const pictures = groups.map(picture).filter(Boolean);
    const refused = groups.flatMap(({ title, lines }) =>
      lines.filter(([, d]) => !d || d.v === undefined).map(([label]) => `${label} (${title})`),
    );
    return [
      ...(pictures.length ? pictures : [el("p", {}, "No row of these has a difference.")]),
      ...(refused.length && pictures.length
        ? [el("p", { class: "lead" }, `Without a difference: ${refused.join(", ")}.`)]
        : []),
    ];
  };

  function picture({ title, column, lines }) {
    const found = lines.filter(([, d]) => d && d.v !== undefined).sort(([, a], [, b]) => b.v - a.v);
    if (!found.length) return null;
    const width = Harness.room();
    const left = Math.min(width * 0.45, 16 + 7.2 * Math.max(...found.map(([label]) => label.length)));
    const height = TOP + LINE * found.length + BOTTOM;
    const x = Harness.axis([0, ...found.flatMap(([, d]) => [d.l ?? d.v, d.h ?? d.v])], left, width - RIGHT, false);
    const foot = height - BOTTOM;
    const tally = Object.keys(Harness.SIGNS)
      .map((verdict) => [verdict, found.filter(([, d]) => d.verdict === verdict).length])
      .filter(([, count]) => count)
      .map(([verdict, count]) => `${count} ${Harness.SIGNS[verdict][1]}`);
    const unit = `difference to ${Harness.data.baseline}, ${column.percent ? "points" : column.metric}`;
    return el(
      "figure",
      { class: "plot forest" },
      el("figcaption", {}, el("b", {}, title)),
      svg(
        "svg",
        {
          viewBox: `0 0 ${width} ${height}`,
          role: "img",
          "aria-label": `${title}, differences to ${Harness.data.baseline}: ${tally.join(", ")}`,
        },
        Harness.apart(x).map((t) => [
          svg("line", { class: "grid", x1: x.at(t), x2: x.at(t), y1: TOP, y2: foot }),
          svg("text", { x: x.at(t), y: foot + 16, "text-anchor": "middle" }, Harness.number(t, column, Math.abs(t) > 1e-9)),
        ]),
        svg("line", { class: "zero", x1: x.at(0), x2: x.at(0), y1: TOP, y2: foot }),
        svg("text", { x: (left + width - RIGHT) / 2, y: height - 8, "text-anchor": "middle", class: "name" }, unit),
        found.map(([label, d], at) => line(label, d, x, TOP + LINE * (at + 0.5), left, column)),
      ),
    );
  }

  // Names are cut where a long one would leave no room for the picture; the tooltip has all of it.
  function line(label, d, x, y, left, column) {
    const [sign, words] = Harness.SIGNS[d.verdict];
    const fit = Math.floor((left - 14) / 7.2);
    const name = label.length > fit ? `${label.slice(0, fit - 1)}…` : label;
    return svg(
      "g",
      { class: `effect ${d.verdict.replace(" ", "-")}` },
      svg("title", {}, `${label}: ${Harness.number(d.v, column, true)} (${Harness.interval(d, column)}), ${words}`),
      svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, `${sign} ${name}`),
      d.l === undefined ? null : svg("line", { x1: x.at(d.l), x2: x.at(d.h), y1: y, y2: y }),
      svg("circle", { cx: x.at(d.v), cy: y, r: 4.5 }),
    );
  }
})();
