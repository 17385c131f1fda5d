// What two answers have in common, word by word: words that only one of them has are marked.
"use strict";

(() => {
  const { el } = Harness;
  const MOST = 4e6; // fields of the table of common words; two texts of 2,000 words each
  const ALIKE = 1 / 3; // texts that share less are different altogether, and marks would tell nothing

  // The nodes of `text`, with the words that `other` has not in the same order marked.
  Harness.marked = (text, other) => {
    if (!text || !other || text === other) return text;
    const [ours, theirs] = [words(text), words(other)];
    const shared = common(ours.map(bare), theirs.map(bare));
    const count = shared?.filter(Boolean).length ?? 0;
    if (count < ALIKE * Math.max(ours.length, theirs.length)) return text;
    const nodes = [];
    for (let at = 0; at < ours.length; ) {
      const from = at;
      while (at < ours.length && shared[at] === shared[from]) at += 1;
      const run = ours.slice(from, at).join("");
      if (shared[from]) nodes.push(run);
      else nodes.push(el("mark", {}, run.trimEnd()), run.slice(run.trimEnd().length));
    }
    return nodes;
  };

  const words = (text) => text.match(/\s*\S+\s*/g) || [text];
  const bare = (word) => word.trim();

  // For each word of a, whether it is in the longest common subsequence of both; null where that is too much work.
  function common(a, b) {
    let [start, enda, endb] = [0, a.length, b.length];
    while (start < enda && start < endb && a[start] === b[start]) start += 1;
    while (enda > start && endb > start && a[enda - 1] === b[endb - 1]) [enda, endb] = [enda - 1, endb - 1];
    const [n, m] = [enda - start, endb - start];
    if ((n + 1) * (m + 1) > MOST) return null;
    const wide = m + 1,
      longest = new Uint16Array((n + 1) * wide);
    for (let i = n - 1; i >= 0; i -= 1)
      for (let j = m - 1; j >= 0; j -= 1)
        longest[i * wide + j] =
          a[start + i] === b[start + j]
            ? longest[(i + 1) * wide + j + 1] + 1
            : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    const shared = a.map((_, at) => at < start || at >= enda);
    for (let i = 0, j = 0; i < n && j < m; ) {
      if (a[start + i] === b[start + j]) [shared[start + i], i, j] = [true, i + 1, j + 1];
      else if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i += 1;
      else j += 1;
    }
    return shared;
  }
})();
