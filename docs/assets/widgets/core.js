// What the widgets compute. Each function copies one of the package, named beside it,
// and tests/test_browser.py holds the two together.
const minillm = { data: {} };

// minillm.tokenizer.patterns.pretokenize(text, GPT2_PATTERN). Python and JavaScript disagree
// about what a blank is, so it is spelled out.
minillm.pretokenize = (text) => {
  const s = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
  const pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${s}\\p{L}\\p{N}]+` +
    `|[${s}]+(?![^${s}])|[${s}]+`;
  return text.match(new RegExp(pattern, "gu")) ?? [];
};

minillm.utf8 = (text) => Array.from(new TextEncoder().encode(text));

// The merges, as a flat list of pairs: merge i makes token 256 + i.
minillm.ranks = (merges) => {
  const ranks = new Map();
  for (let i = 0; i < merges.length; i += 2) {
    ranks.set(merges[i] * 65536 + merges[i + 1], 256 + i / 2);
  }
  return ranks;
};

// minillm.bpe.BPETokenizer.encode: of all pairs that can be merged, the one that was
// learned first, until there is none.
minillm.encode = (text, ranks, vocabSize) => {
  const all = [];
  for (const piece of minillm.pretokenize(text)) {
    const ids = minillm.utf8(piece);
    for (;;) {
      let best = vocabSize, at = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = ranks.get(ids[i] * 65536 + ids[i + 1]) ?? Infinity;
        if (id < best) [best, at] = [id, i];
      }
      if (at < 0) break;
      ids.splice(at, 2, best);
    }
    all.push(...ids);
  }
  return all;
};

// The bytes of every token, each token a string of characters below 256.
minillm.tokens = (merges) => {
  const tokens = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i));
  for (let i = 0; i < merges.length; i += 2) {
    tokens.push(tokens[merges[i]] + tokens[merges[i + 1]]);
  }
  return tokens;
};

// minillm.accounting.shapes.param_count
minillm.paramCount = (c) => {
  const d = c.d_model, kv = c.n_kv_heads * d / c.n_heads, norms = 2 * c.n_layers + 1;
  const outputs = 2 * d + 2 * kv + (c.mlp_matrices - 1) * c.d_ff + d;
  const parts = {
    embedding: c.vocab_size * d,
    positions: c.position_rows * d,
    projections: c.n_layers * (2 * d * d + 2 * d * kv),
    ffn: c.n_layers * c.mlp_matrices * d * c.d_ff,
    head: c.tie_embeddings ? 0 : c.vocab_size * d,
    norms: norms * d,
    biases: c.biases ? c.n_layers * outputs + norms * d : 0,
  };
  return { ...parts, total: Object.values(parts).reduce((a, b) => a + b) };
};

// minillm.flops.forward_flops
minillm.forwardFlops = (c, batch, seq) => {
  const d = c.d_model, kv = c.n_kv_heads * d / c.n_heads, n = 2 * batch * seq;
  const parts = {
    projections: c.n_layers * n * (2 * d * d + 2 * d * kv),
    attention: c.n_layers * 2 * n * seq * d,
    ffn: c.n_layers * n * c.mlp_matrices * d * c.d_ff,
    head: n * d * c.vocab_size,
  };
  return { ...parts, total: Object.values(parts).reduce((a, b) => a + b) };
};

// minillm.accounting.memory.training_memory. Bytes for each: as in mixed precision.
minillm.trainingMemory = (c, batch, seq) => {
  const d = c.d_model, kv = c.n_kv_heads * d / c.n_heads, n = minillm.paramCount(c).total;
  const layer = 2 * (2 * d + 1) + 2 * d + 2 * d + 2 * kv + c.n_heads +
    d + (c.mlp_matrices === 3 ? 4 : 2) * c.d_ff;
  const end = 2 * d + 1 + d + c.vocab_size;
  const parts = {
    weights: 2 * n,
    gradients: 2 * n,
    optimizer: 12 * n,
    activations: batch * seq * ((c.n_layers * layer + end) * 2 + 16),
  };
  return { ...parts, total: Object.values(parts).reduce((a, b) => a + b) };
};

// minillm.accounting.memory.inference_memory
minillm.inferenceMemory = (c, batch, seq) => {
  const kv = c.n_kv_heads * c.d_model / c.n_heads;
  const weights = 2 * minillm.paramCount(c).total;
  const cache = 2 * 2 * c.n_layers * batch * seq * kv;
  return { weights, kv_cache: cache, total: weights + cache };
};

// minillm.accounting.cost.training_cost, without the money.
minillm.seconds = (flops, chip, utilization) => flops / (chip.peak_flops * utilization);

// minillm.generate.pick without the draw: apply_temperature, top_k_filter,
// top_p_filter, softmax.
minillm.distribution = (logits, { temperature = 1, topK = Infinity, topP = 1 }) => {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const order = logits.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b);
  const weights = logits.map((x) => Math.exp((x - top) / temperature));
  for (const i of order.slice(topK)) weights[i] = 0;
  const sum = weights.reduce((a, b) => a + b);
  let before = 0;
  for (const i of order) {
    // A token goes when those before it already reach top p.
    const p = weights[i] / sum;
    if (topP < 1 && before >= topP) weights[i] = 0;
    before += p;
  }
  const kept = weights.reduce((a, b) => a + b);
  return { order, probabilities: weights.map((w) => w / kept) };
};
