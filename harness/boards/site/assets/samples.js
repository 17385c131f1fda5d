// Single items: what two cells answered to the same question, side by side. Files are read when they are asked for.
"use strict";

(() => {
  const { el } = Harness;
  const A_PAGE = 100; // items listed at once
  const KINDS = [
    ["", "all items"],
    ["a", "only A right"],
    ["b", "only B right"],
    ["both", "both right"],
    ["none", "both wrong"],
  ];
  let now = null;

  function show(place) {
    const columns = Harness.data.columns.map((column, at) => ({ ...column, at })).filter((c) => !c.parts.length);
    const pick = (name, text, options) =>
      el(
        "label",
        {},
        `${text} `,
        el(
          "select",
          {
            name,
            onchange: (event) => Harness.change({ [name]: event.target.value, item: "", from: "" }),
          },
          options.map(([value, shown]) => el("option", { value }, shown)),
        ),
      );
    const picks = el(
      "p",
      { class: "picks" },
      pick(
        "task",
        "Task",
        columns.map((c) => [c.at, c.label]),
      ),
      pick("a", "A", []),
      pick("b", "B", []),
    );
    const body = el("div", { class: "samples" });
    now = { columns, picks, body, turn: 0 };
    update(place);
    return el("section", {}, el("h2", {}, "Samples"), picks, body);
  }

  // Cells with an answer to the task. The first time A is the last of them and B the baseline.
  function cellsOf(column) {
    return Harness.data.cells
      .map((cell, at) => ({ ...cell, at }))
      .filter((cell) => Harness.data.sampled[column.at]?.includes(cell.at));
  }

  async function update(place) {
    const mine = (now.turn += 1);
    const column = now.columns.find((c) => String(c.at) === place.at.get("task")) || now.columns[0];
    const cells = column ? cellsOf(column) : [];
    if (!cells.length) {
      now.body.replaceChildren(el("p", {}, "This task has no samples."));
      return;
    }
    const base = cells.find((cell) => cell.method === Harness.data.baseline);
    const a =
      cells.find((cell) => String(cell.at) === place.at.get("a")) || cells.find((cell) => cell !== base) || cells[0];
    const b =
      place.at.get("b") === "none"
        ? null
        : cells.find((cell) => String(cell.at) === place.at.get("b")) || (base !== a && base) || null;
    choose(column, cells, a, b);
    now.body.setAttribute("aria-busy", "true");
    try {
      const names = ["items", a.at, ...(b ? [b.at] : [])].map((name) => `samples/${column.at}/${name}`);
      const [items, ours, theirs] = await Promise.all(names.map(Harness.load));
      if (mine === now.turn) draw(place, column, items, { cell: a, ...ours }, b && { cell: b, ...theirs });
    } catch (error) {
      now.body.replaceChildren(
        el(
          "p",
          { role: "alert" },
          `The samples cannot be read: ${error.message}. Is the folder data/ beside this page complete?`,
        ),
      );
    }
    now.body.removeAttribute("aria-busy");
  }

  function choose(column, cells, a, b) {
    const options = () => cells.map((cell) => el("option", { value: cell.at }, cell.name));
    const field = (name) => now.picks.querySelector(`[name=${name}]`);
    field("task").value = column.at;
    field("a").replaceChildren(...options());
    field("a").value = a.at;
    field("b").replaceChildren(el("option", { value: "none" }, "nothing"), ...options());
    field("b").value = b ? b.at : "none";
  }

  // 1 right, 0 wrong, null where the score says neither (a share, a correlation, nothing).
  function right(score) {
    if (Array.isArray(score)) return score[0] === score[1] ? 1 : 0;
    return score === 1 || score === 0 ? score : null;
  }

  function kind(a, b) {
    if (a === null || b === null) return "";
    return a ? (b ? "both" : "a") : b ? "b" : "none";
  }

  function draw(place, column, items, ours, theirs) {
    const kinds = items.item.map((_, at) =>
      theirs ? kind(right(ours.score[at] ?? null), right(theirs.score[at] ?? null)) : "",
    );
    const only = theirs ? place.at.get("only") || "" : "";
    const listed = items.item.map((_, at) => at).filter((at) => !only || kinds[at] === only);
    const from = Math.min(Number(place.at.get("from") || 0), Math.max(0, listed.length - 1));
    const open = listed.includes(Number(place.at.get("item") || NaN)) ? Number(place.at.get("item")) : listed[from];
    now.body.replaceChildren(
      theirs ? counts(kinds, only) : el("p", {}, `${items.item.length} items`),
      el(
        "div",
        { class: "pair" },
        list(items, ours, theirs, listed, from, open),
        open === undefined
          ? el("p", {}, "No item is of this kind.")
          : detail(items, ours, theirs, open, listed, column),
      ),
    );
    now.body.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  function counts(kinds, only) {
    const each = KINDS.map(([name, text]) =>
      el(
        "button",
        {
          type: "button",
          "aria-pressed": String(only === name),
          onclick: () => Harness.change({ only: name, item: "", from: "" }),
        },
        `${text}: ${name ? kinds.filter((k) => k === name).length : kinds.length}`,
      ),
    );
    return el("p", { class: "counts", role: "group", "aria-label": "Items by who is right" }, each);
  }

  const MARK = (score) => {
    const is = right(score ?? null);
    return is === null ? ["·", "scored"] : is ? ["✓", "right"] : ["✗", "wrong"];
  };

  function list(items, ours, theirs, listed, from, open) {
    const button = (at) =>
      el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            "aria-current": at === open && "true",
            onclick: () => Harness.change({ item: at }),
          },
          el("code", {}, items.item[at].slice(0, 10)),
          [ours, theirs].filter(Boolean).map((side) => {
            const [sign, words] = MARK(side.score[at]);
            return el("span", { class: words, role: "img", "aria-label": words }, sign);
          }),
        ),
      );
    const turn = (to, text) =>
      el("button", { type: "button", onclick: () => Harness.change({ from: to, item: "" }) }, text);
    return el(
      "nav",
      { class: "list", "aria-label": "Items" },
      el("ol", {}, listed.slice(from, from + A_PAGE).map(button)),
      el(
        "p",
        {},
        from > 0 ? turn(Math.max(0, from - A_PAGE), "earlier") : null,
        ` ${listed.length ? from + 1 : 0} to ${Math.min(from + A_PAGE, listed.length)} of ${listed.length} `,
        from + A_PAGE < listed.length ? turn(from + A_PAGE, "later") : null,
      ),
    );
  }

  function detail(items, ours, theirs, at, listed, column) {
    const place = listed.indexOf(at);
    const step = (to, text) =>
      el(
        "button",
        {
          type: "button",
          disabled: listed[to] === undefined,
          onclick: () => Harness.change({ item: listed[to], from: Math.floor(to / A_PAGE) * A_PAGE }),
        },
        text,
      );
    const field = (side, name) => side[name]?.[at] ?? null;
    const sides = [
      ["A", ours],
      ["B", theirs],
    ].filter(([, side]) => side);
    // Of a field of the side with this number: its text, with the words marked that the other side has not.
    const marked = (number, name) => {
      const [mine, other] = [number, 1 - number].map((n) => (sides[n] ? field(sides[n][1], name) : null));
      return mine === null ? null : Harness.marked(mine, other);
    };
    const prompts = sides.map(([, side]) => field(side, "prompt") ?? field(items, "prompt"));
    const same = prompts.every((prompt) => prompt === prompts[0]);
    return el(
      "article",
      { class: "item" },
      el(
        "header",
        {},
        el("h3", {}, `Item ${items.item[at]}`),
        el("p", {}, step(place - 1, "previous"), " ", step(place + 1, "next")),
      ),
      same ? text("Prompt as sent", prompts[0]) : null,
      text("Expected", field(items, "target")),
      el(
        "div",
        { class: "sides" },
        sides.map(([name, side], number) => {
          const [sign, words] = MARK(side.score[at]);
          const score = side.score[at];
          const shown = Array.isArray(score)
            ? `expected ${score[0]}, said ${score[1]}`
            : score === undefined || score === null
              ? "no score"
              : `${column.metric} ${score}`;
          const outcome = field(side, "outcome");
          return el(
            "section",
            { "aria-label": `${name}: ${side.cell.name}` },
            el("h4", {}, `${name}: ${side.cell.name}`),
            el(
              "p",
              { class: `verdict ${words}` },
              `${sign} ${words}`,
              outcome && outcome !== words ? ` (${outcome})` : "",
              ` · ${shown}`,
            ),
            same ? null : text("Prompt as sent", prompts[number]),
            text("Answer as read by the scorer", marked(number, "answer")),
            text("Output", marked(number, "output")),
            text("Why", field(side, "why")),
            field(side, "finish") === "length" ? el("p", { class: "cut" }, "The token limit cut this answer.") : null,
          );
        }),
      ),
      sides.every(([, side]) => !side.output)
        ? el("p", { class: "lead" }, "The outputs themselves are not part of this board's entries.")
        : null,
    );
  }

  function text(name, body) {
    return body === null
      ? null
      : el(
          "div",
          { class: "text" },
          el("p", { class: "name" }, name),
          el("pre", { tabindex: "0", "aria-label": name }, body),
        );
  }

  Harness.view("samples", {
    title: "Samples",
    filtered: false,
    show,
    update,
    wanted: () => Object.keys(Harness.data.sampled).length > 0,
  });
})();
