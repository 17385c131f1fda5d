// What training logged: a small picture a row, a line a seed. Rows minimise different losses, so each has its own scale.
"use strict";

(() => {
  const { el, svg } = Harness;
  const WIDTH = 280,
    HEIGHT = 170,
    LEFT = 52,
    RIGHT = 10,
    TOP = 8,
    BOTTOM = 34;
  let now = null;

  function show(place) {
    const pick = el(
      "select",
      { name: "value", onchange: (event) => Harness.change({ value: event.target.value }) },
      Harness.data.logged.map((name) => el("option", { value: name }, name)),
    );
    now = { pick, body: el("div", {}), turn: 0 };
    update(place);
    return el(
      "section",
      {},
      el("h2", {}, "Training"),
      el(
        "p",
        { class: "lead" },
        "A line is one seed, from the first optimiser step to the last. Methods minimise different things: each ",
        "picture has its own scale, and heights do not compare between pictures. Of long runs 200 points are drawn.",
      ),
      el("p", { class: "picks" }, el("label", {}, "Logged value ", pick)),
      now.body,
    );
  }

  async function update(place) {
    const mine = (now.turn += 1);
    const { logged } = Harness.data;
    const at = Math.max(0, logged.indexOf(place.at.get("value")));
    now.pick.value = logged[at];
    now.body.setAttribute("aria-busy", "true");
    try {
      const curves = await Harness.load(`training/${at}`);
      if (mine === now.turn) draw(place, logged[at], curves);
    } catch (error) {
      const why = `The curves cannot be read: ${error.message}. Is the folder data/ beside this page complete?`;
      now.body.replaceChildren(el("p", { role: "alert" }, why));
    }
    now.body.removeAttribute("aria-busy");
  }

  function draw(place, value, curves) {
    const rows = Harness.rows(place.at)
      .filter((row) => row.level === "method" && row.trained)
      .map((row) => ({
        row,
        lines: row.cells.filter((cell) => curves[cell]).map((cell) => line(row, Harness.data.cells[cell], curves[cell])),
      }));
    const drawn = rows.filter(({ lines }) => lines.length);
    const without = rows.filter(({ lines }) => !lines.length).map(({ row }) => nameOf(row));
    const seeds = [...new Set(drawn.flatMap(({ lines }) => lines.map((l) => l.seed)))].sort((a, b) => a - b);
    now.body.replaceChildren(
      ...(drawn.length
        ? [legend(seeds), el("div", { class: "panels" }, drawn.map((one) => panel(one, value, seeds)))]
        : [el("p", {}, `No row of these logged ${value}.`)]),
      ...(without.length && drawn.length
        ? [el("p", { class: "lead" }, `Logged no ${value}, or not trained yet: ${without.join(", ")}.`)]
        : []),
    );
  }

  // A row may be of several artifacts a seed, one a group of its data; each is called by its whole name.
  const line = (row, cell, { x, y }) => ({
    seed: cell.seed,
    name: cell.method === row.method ? words(cell.seed) : cell.name,
    points: x.map((step, at) => [step, y[at]]).filter(([, v]) => v !== null),
    gaps: y.filter((v) => v === null).length,
  });

  const several = () => new Set(Harness.data.rows.map((row) => row.model)).size > 1;
  const nameOf = (row) => (several() ? `${row.label} of ${row.model}` : row.label);
  const words = (seed) => (seed === null ? "no seed" : `seed ${seed}`);
  const short = (v) => Number(v.toPrecision(3)).toString().replace("-", "−");

  function legend(seeds) {
    return el(
      "p",
      { class: "legend" },
      seeds.map((seed, at) => el("span", { class: `m${at % 6}` }, `— ${words(seed)}  `)),
    );
  }

  function panel({ row, lines }, value, seeds) {
    const gone = lines.filter((l) => l.gaps).map((l) => l.name);
    return el(
      "figure",
      { class: "plot panel" },
      el("figcaption", {}, el("b", {}, nameOf(row)), gone.length ? ` no number at times: ${gone.join(", ")}` : null),
      picture(row, lines, value, seeds),
    );
  }

  function picture(row, lines, value, seeds) {
    const all = lines.flatMap((l) => l.points);
    if (!all.length) return el("p", {}, "Never a number.");
    const x = Harness.axis([0, ...all.map(([step]) => step)], LEFT, WIDTH - RIGHT, false);
    const y = Harness.axis(
      all.map(([, v]) => v),
      HEIGHT - BOTTOM,
      TOP,
      false,
    );
    const ends = lines
      .filter((l) => l.points.length)
      .map(({ name, points }) => {
        const [first, last] = [points[0], points[points.length - 1]];
        return `${name} from ${short(first[1])} to ${short(last[1])} in ${last[0]} steps`;
      });
    return svg(
      "svg",
      {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
        role: "img",
        "aria-label": `${value} of ${nameOf(row)}: ${ends.join("; ")}`,
      },
      y.ticks
        .map((t) => [
          svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(t), y2: y.at(t) }),
          svg("text", { x: LEFT - 6, y: y.at(t) + 4, "text-anchor": "end" }, short(t)),
        ])
        .flat(),
      x.ticks
        .filter((t) => Number.isInteger(t) && t >= 0)
        .map((t) => svg("text", { x: x.at(t), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(t))),
      svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "optimiser steps"),
      lines.map((l) => stroke(l, x, y, seeds.indexOf(l.seed) % 6)),
    );
  }

  // One step alone would be a line without length.
  function stroke({ name, points }, x, y, colour) {
    const d = points.map(([step, v], at) => `${at ? "L" : "M"}${x.at(step).toFixed(1)} ${y.at(v).toFixed(1)}`).join("");
    return svg(
      "g",
      { class: `curve m${colour}` },
      svg("title", {}, name),
      svg("path", { d }),
      points.length < 13 ? points.map(([step, v]) => svg("circle", { cx: x.at(step), cy: y.at(v), r: 2 })) : null,
    );
  }

  Harness.view("training", {
    title: "Training",
    filtered: true,
    show,
    update,
    wanted: () => Harness.data.logged.length > 0,
  });
})();
