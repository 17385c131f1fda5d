// Footnotes: sentences that belong to numbers, numbered in the order in which a page first shows them.
"use strict";

(() => {
  const { el } = Harness;

  // One for every table: mark(places) gives the superscript, list() the sentences under it.
  Harness.notes = () => {
    const numbers = new Map();
    return {
      mark(places) {
        if (!places || !places.length) return null;
        for (const place of places) if (!numbers.has(place)) numbers.set(place, numbers.size + 1);
        return el(
          "sup",
          {},
          places
            .map((place) => numbers.get(place))
            .sort((a, b) => a - b)
            .join(","),
        );
      },
      list() {
        const said = [...numbers].map(([place, number]) =>
          el("li", { value: number }, Harness.data.sentences[place]),
        );
        return el(
          "section",
          { class: "notes", "aria-label": "Footnotes" },
          el(
            "ul",
            {},
            Harness.data.notes.map((note) => el("li", {}, note)),
          ),
          ...(said.length ? [el("ol", {}, said)] : []),
        );
      },
    };
  };
})();
