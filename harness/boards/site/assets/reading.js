// How to read the board, what was measured and how, and the way to make it again.
"use strict";

(() => {
  const { el } = Harness;
  const WORDS = [
    [
      "Score",
      "How much of the task was answered as it should be, in percent unless the column says otherwise. Click it " +
        "for the items behind it.",
    ],
    [
      "Interval",
      "The bar, and the two numbers under the score. With other questions of the same kind (and other training " +
        "seeds, where a row has several) the score would have come out somewhat different; ranges made this way " +
        "hold the true value in 95 of 100 cases. Whether two rows differ is told by the differences, not by " +
        "whether their bars overlap.",
    ],
    [
      "Tier and rank",
      "Rows of one tier cannot be told from the best row of that tier by these data; tier 1 holds the leader. " +
        "Rank 2 to 5 says that anything from second to fifth place is compatible with what was measured.",
    ],
    [
      "▲ better, ▼ worse",
      "A difference to the baseline that holds after correction for how many differences this board looks at. " +
        "Only these are findings.",
    ],
    ["≈ undecided", "The data do not say which is better. That is not the same as equal."],
    [
      "◌ one seed",
      "The row was trained once. Another training run of the same method would give another number, and nobody " +
        "knows how far away; so it is never a finding, however large.",
    ],
    [
      "Cost",
      "What training and answering took on the machine of the run. Memory and time from other machines do not " +
        "compare.",
    ],
    [
      "Footnotes",
      "Small raised numbers: subsets, made data, answers cut by a limit, training data that share text with the " +
        "test.",
    ],
  ];

  function show() {
    const data = Harness.data;
    return el(
      "section",
      { class: "prose" },
      el("h2", {}, "How to read this board"),
      el(
        "dl",
        {},
        WORDS.map(([word, meaning]) => [el("dt", {}, word), el("dd", {}, meaning)]),
      ),
      el("h3", {}, "What holds for every number"),
      el(
        "ul",
        {},
        data.notes.map((note) => el("li", {}, note)),
      ),
      ...(data.reproduce ? [el("h3", {}, "Make it again"), el("pre", { tabindex: "0" }, data.reproduce)] : []),
      ...(data.links.length
        ? [
            el("h3", {}, "Elsewhere"),
            el(
              "ul",
              {},
              data.links.map(([text, href]) => el("li", {}, el("a", { href }, text))),
            ),
          ]
        : []),
      el("h3", {}, "Protocols"),
      el("p", {}, "What was measured how. Two columns of one task with different protocols do not compare."),
      el(
        "ul",
        {},
        data.columns
          .filter((column) => column.parts.length)
          .map((column) => el("li", {}, `${column.label}: the plain mean of ${column.parts.join(", ")}`)),
      ),
      data.columns.filter((column) => !column.parts.length).map(protocol),
    );
  }

  function protocol(column) {
    const fields = Object.entries(data_of(column)).filter(([name]) => name);
    return el(
      "details",
      {},
      el("summary", {}, `${column.label}: ${column.metric} `, el("code", {}, column.protocol)),
      el(
        "dl",
        { class: "fields" },
        [
          ["suite", column.suite],
          ["task", column.task],
          ["items", column.items === null ? "not known" : `${column.items} of ${column.whole ?? "?"}`],
          ["a guesser's score", column.chance === null ? "not known" : Harness.number(column.chance, column)],
          ...fields,
        ].map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
      ),
      ...column.notes.map((place) => el("p", {}, Harness.data.sentences[place])),
    );
  }

  const data_of = (column) => Harness.data.measured[column.protocol] || {};

  Harness.view("reading", { title: "How to read", filtered: false, show });
})();
