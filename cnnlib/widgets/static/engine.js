// The forward pass of a network in plain JavaScript: what `cnnlib.widgets.live` exports, run in a page, a worker or Node.
//
// `engine()` closes over nothing outside itself, so that its text can start a worker. A graph is a list of nodes in forward
// order, node 0 the picture; node i makes value i, of `shape` (batch of 1 included), from the values that `from` names.

export function engine() {
  const range = (count) => Array.from({ length: count }, (_, i) => i);
  const size = (shape) => shape.reduce((product, length) => product * length, 1);
  const stridesOf = (shape) => shape.map((_, axis) => size(shape.slice(axis + 1)));
  const axisOf = (axis, shape) => (axis < 0 ? axis + shape.length : axis);

  // --- weights: a file of safetensors in float32, float16 or int8 with one scale for each output channel ---

  // All 65,536 numbers of half precision. A float32 has the same parts: its exponent begins 112 lower, its fraction is 13 bits longer.
  function everyHalf() {
    const found = new Float32Array(1 << 16);
    const bits = new Uint32Array(found.buffer);
    for (let i = 0; i < 1 << 15; i++) {
      const [exponent, fraction] = [i >> 10, i & 1023];
      if (exponent) bits[i] = ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
      else found[i] = fraction * 2 ** -24;
      bits[i + (1 << 15)] = bits[i] | (1 << 31);
    }
    return found;
  }
  let halves = null; // made when a file has some

  function readWeights(buffer) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const raw = ({ dtype, data_offsets: [start, end] }) => {
      const bytes = buffer.slice(8 + length + start, 8 + length + end);
      return new { F32: Float32Array, F16: Uint16Array, I8: Int8Array }[dtype](bytes);
    };
    const weights = {};
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__" || name.endsWith(".scale")) continue;
      const stored = raw(entry);
      const values = (weights[name] = entry.dtype === "F32" ? stored : new Float32Array(stored.length));
      if (entry.dtype === "F16") {
        halves ??= everyHalf();
        for (let i = 0; i < stored.length; i++) values[i] = halves[stored[i]];
      } else if (entry.dtype === "I8") {
        const scales = raw(header[`${name}.scale`]);
        const row = stored.length / scales.length;
        for (let r = 0, i = 0; r < scales.length; r++) for (const end = i + row; i < end; i++) values[i] = stored[i] * scales[r];
      }
    }
    return weights;
  }

  // --- products of matrices, where nearly all of the work is ---

  const sums = new Float64Array(16);

  // sums[4 r + c] of four rows of `a` with four columns, which lie in `panel` interleaved.
  function tile(a, r0, r1, r2, r3, panel, at, depth) {
    let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
    let s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
    for (let k = 0, p = at; k < depth; k++, p += 4) {
      const a0 = a[r0 + k], a1 = a[r1 + k], a2 = a[r2 + k], a3 = a[r3 + k];
      let b = panel[p];
      s00 += a0 * b; s10 += a1 * b; s20 += a2 * b; s30 += a3 * b;
      b = panel[p + 1];
      s01 += a0 * b; s11 += a1 * b; s21 += a2 * b; s31 += a3 * b;
      b = panel[p + 2];
      s02 += a0 * b; s12 += a1 * b; s22 += a2 * b; s32 += a3 * b;
      b = panel[p + 3];
      s03 += a0 * b; s13 += a1 * b; s23 += a2 * b; s33 += a3 * b;
    }
    sums[0] = s00; sums[1] = s01; sums[2] = s02; sums[3] = s03; sums[4] = s10; sums[5] = s11; sums[6] = s12; sums[7] = s13;
    sums[8] = s20; sums[9] = s21; sums[10] = s22; sums[11] = s23; sums[12] = s30; sums[13] = s31; sums[14] = s32; sums[15] = s33;
  }

  let panel = new Float32Array(1 << 16);

  // out[outAt + r rowStep + c columnStep] = bias + row r of `a` times column c, for `rows` x `columns`; `pack(first, count)`
  // puts the columns from `first` on into `panel`, four by four.
  function product(a, aAt, rows, depth, columns, pack, out, outAt, rowStep, columnStep, bias, biasAt) {
    const block = Math.max(4, Math.min(256, 4 * Math.floor(16384 / depth)));
    if (panel.length < block * depth) panel = new Float32Array(block * depth);
    for (let first = 0; first < columns; first += block) {
      const count = Math.min(block, columns - first);
      pack(first, count);
      for (let r = 0; r < rows; r += 4) {
        const r0 = aAt + r * depth, r1 = r + 1 < rows ? r0 + depth : r0;
        const r2 = r + 2 < rows ? r1 + depth : r0, r3 = r + 3 < rows ? r2 + depth : r0;
        const high = Math.min(4, rows - r);
        for (let c = 0; c < count; c += 4) {
          tile(a, r0, r1, r2, r3, panel, c * depth, depth);
          const wide = Math.min(4, count - c);
          for (let i = 0; i < high; i++) {
            const add = bias ? bias[biasAt + r + i] : 0;
            for (let j = 0; j < wide; j++) out[outAt + (r + i) * rowStep + (first + c + j) * columnStep] = sums[4 * i + j] + add;
          }
        }
      }
    }
  }

  function dots(a, aAt, rows, depth, x, xAt, out, outAt, bias, biasAt) {
    for (let r = 0, p = aAt; r < rows; r++, p += depth) {
      let [s0, s1] = [bias ? bias[biasAt + r] : 0, 0];
      let k = 0;
      for (; k + 1 < depth; k += 2) {
        s0 += a[p + k] * x[xAt + k];
        s1 += a[p + k + 1] * x[xAt + k + 1];
      }
      if (k < depth) s0 += a[p + k] * x[xAt + k];
      out[outAt + r] = s0 + s1;
    }
  }

  function conv(node, [x], weights, shapes) {
    const [, , H, W] = shapes[0];
    const [, C, OH, OW] = node.shape;
    const { groups, kernel: [KH, KW], stride: [SH, SW], padding: [PH, PW], dilation: [DH, DW] } = node;
    const inputs = shapes[0][1] / groups;
    const outputs = C / groups;
    const [weight, bias] = [weights[node.weight], weights[node.bias]];
    const depth = inputs * KH * KW;
    const area = OH * OW;
    const out = new Float32Array(C * area);
    if (inputs === 1 && outputs === 1) {
      const line = new Float64Array(OW);
      for (let c = 0; c < C; c++) for (let row = 0; row < OH; row++) {
        line.fill(bias ? bias[c] : 0);
        for (let i = 0; i < KH; i++) {
          const y = row * SH - PH + i * DH;
          if (y < 0 || y >= H) continue;
          for (let j = 0; j < KW; j++) {
            const w = weight[c * depth + i * KW + j];
            const shift = j * DW - PW;
            const last = Math.min(OW - 1, Math.floor((W - 1 - shift) / SW));
            for (let o = Math.max(0, Math.ceil(-shift / SW)), p = (c * H + y) * W + shift + o * SW; o <= last; o++, p += SW) line[o] += w * x[p];
          }
        }
        out.set(line, c * area + row * OW);
      }
      return out;
    }
    const plain = KH * KW === 1 && SH === 1 && SW === 1 && !PH && !PW;
    for (let g = 0; g < groups; g++) {
      const from = g * inputs * H * W;
      if (area === 1 && KH === H && KW === W && !PH && !PW) {
        dots(weight, g * outputs * depth, outputs, depth, x, from, out, g * outputs, bias, g * outputs);
        continue;
      }
      const pack = (first, count) => {
        for (let c = 0; c < count; c++) {
          const column = first + c;
          const at = (c >> 2) * 4 * depth + (c & 3);
          const top = Math.floor(column / OW) * SH - PH;
          const left = (column % OW) * SW - PW;
          if (plain) for (let k = 0, p = from + column; k < depth; k++, p += area) panel[at + 4 * k] = x[p];
          else for (let k = 0, q = at; k < inputs; k++) for (let i = 0, y = top; i < KH; i++, y += DH) {
            const base = from + (k * H + y) * W;
            const outside = y < 0 || y >= H;
            for (let j = 0, z = left; j < KW; j++, z += DW, q += 4) panel[q] = outside || z < 0 || z >= W ? 0 : x[base + z];
          }
        }
      };
      product(weight, g * outputs * depth, outputs, depth, area, pack, out, g * outputs * area, area, 1, bias, g * outputs);
    }
    return out;
  }

  function linear(node, [x], weights) {
    const [weight, bias] = [weights[node.weight], weights[node.bias]];
    const rows = node.shape.at(-1);
    const columns = size(node.shape) / rows;
    const depth = weight.length / rows;
    const out = new Float32Array(rows * columns);
    if (columns === 1) dots(weight, 0, rows, depth, x, 0, out, 0, bias, 0);
    else product(weight, 0, rows, depth, columns, (first, count) => {
      for (let c = 0; c < count; c++) {
        const at = (c >> 2) * 4 * depth + (c & 3);
        for (let k = 0, p = (first + c) * depth; k < depth; k++) panel[at + 4 * k] = x[p + k];
      }
    }, out, 0, 1, rows, bias, 0);
    return out;
  }

  // --- windows, values one by one, and places ---

  // First and last place, and step, of the window of output `i` along one axis of an input of `length`; and how many values
  // an average divides by.
  function window(node, axis, i, length) {
    if (node.op === "adaptive") {
      const out = node.shape[2 + axis];
      const [first, end] = [Math.floor((i * length) / out), Math.ceil(((i + 1) * length) / out)];
      return [first, end - 1, 1, end - first];
    }
    const [kernel, step, padding] = [node.kernel[axis], node.dilation?.[axis] ?? 1, node.padding[axis]];
    const start = i * node.stride[axis] - padding;
    const first = start < 0 ? start + Math.ceil(-start / step) * step : start;
    const last = Math.min(start + (kernel - 1) * step, length - 1);
    const counted = Math.min(start + kernel, length + padding) - start;
    return [first, last, step, node.pad ? counted : last - first + 1];
  }

  function pool(node, [x], weights, [[, C, H, W]]) {
    const [, , OH, OW] = node.shape;
    const out = new Float32Array(C * OH * OW);
    const isMax = node.op === "maxpool";
    const across = range(OW).map((i) => window(node, 1, i, W));
    for (let row = 0; row < OH; row++) {
      const [y0, y1, yStep, high] = window(node, 0, row, H);
      for (let column = 0; column < OW; column++) {
        const [x0, x1, xStep, wide] = across[column];
        for (let c = 0; c < C; c++) {
          let value = isMax ? -Infinity : 0;
          for (let y = y0; y <= y1; y += yStep) for (let p = (c * H + y) * W + x0, end = p + x1 - x0; p <= end; p += xStep) {
            if (!isMax) value += x[p];
            else if (x[p] > value) value = x[p];
          }
          out[(c * OH + row) * OW + column] = isMax ? value : value / (node.divisor ?? high * wide);
        }
      }
    }
    return out;
  }

  function erf(z) { // Abramowitz and Stegun, 7.1.26: error below 1.5e-7
    const t = 1 / (1 + 0.3275911 * Math.abs(z));
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Math.sign(z) * (1 - tail * Math.exp(-z * z));
  }
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  const clamp = (z, low, high) => Math.min(high, Math.max(low, z));
  const ACTIVATIONS = {
    relu: (z) => (z > 0 ? z : 0), hardtanh: clamp, silu: (z) => z * sigmoid(z), sigmoid, tanh: Math.tanh,
    hardsigmoid: (z) => clamp(z + 3, 0, 6) / 6, hardswish: (z) => (z * clamp(z + 3, 0, 6)) / 6,
    gelu: (z) => 0.5 * z * (1 + erf(z * Math.SQRT1_2)), leaky_relu: (z, slope) => (z > 0 ? z : slope * z),
  };
  const BINARY = { add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b };

  // Places in a value, for every element of an array of `shape` in which a step along axis i moves `strides[i]` in the value.
  const places = (shape, strides, offset = 0) => gathered(shape.map((length, axis) => range(length).map((i) => i * strides[axis])), offset);
  function gathered(steps, offset = 0) { // the same for any steps along each axis
    let found = Int32Array.of(offset);
    for (const axis of steps) {
      const next = new Int32Array(found.length * axis.length);
      for (let i = 0, q = 0; i < found.length; i++) for (let j = 0; j < axis.length; j++) next[q++] = found[i] + axis[j];
      found = next;
    }
    return found;
  }
  function broadcast(shape, to) {
    const strides = stridesOf(shape);
    return to.map((_, axis) => {
      const own = axis - to.length + shape.length;
      return own < 0 || shape[own] === 1 ? 0 : strides[own];
    });
  }
  function reduced(node, shape) { // places of what each output is the mean or norm of, one output after another
    const axes = node.axes.map((axis) => axisOf(axis, shape));
    const order = [...range(shape.length).filter((axis) => !axes.includes(axis)), ...axes];
    const strides = stridesOf(shape);
    return [places(order.map((axis) => shape[axis]), order.map((axis) => strides[axis])), size(axes.map((axis) => shape[axis]))];
  }
  function reduce(node, [x], weights, [shape]) { // the mean, or the root of the sum of squares
    const [found, count] = reduced(node, shape);
    const out = new Float32Array(size(node.shape));
    const isNorm = node.op === "norm";
    for (let i = 0; i < out.length; i++) {
      let sum = 0;
      for (let j = i * count; j < (i + 1) * count; j++) sum += isNorm ? x[found[j]] ** 2 : x[found[j]];
      out[i] = isNorm ? Math.sqrt(sum) : sum / count;
    }
    return out;
  }
  function moved(node, shape) { // permute, slice and gather: places only
    const strides = stridesOf(shape);
    if (node.op === "gather") return gathered(shape.map((length, axis) => (node.index[axis] ?? range(length)).map((i) => i * strides[axis])));
    if (node.op === "permute") return places(node.shape, node.order.map((axis) => strides[axis]));
    const axis = axisOf(node.axis, shape);
    return places(node.shape, strides.map((step, i) => (i === axis ? step * node.step : step)), node.start * strides[axis]);
  }
  const move = (node, [x], weights, [shape]) => Float32Array.from(moved(node, shape), (place) => x[place]);
  const perChannel = (shape) => size(shape.slice(2));
  function lrnScale(node, x, [, C, H, W], c, place) { // k + alpha times the mean of squares over neighbouring channels
    let sum = 0;
    const first = c - (node.size >> 1);
    for (let n = Math.max(0, first); n < Math.min(C, first + node.size); n++) sum += x[n * H * W + place] ** 2;
    return node.k + (node.alpha * sum) / node.size;
  }
  function statistics(x, at, length, eps) {
    let [mean, square] = [0, 0];
    for (let i = at; i < at + length; i++) mean += x[i] / length;
    for (let i = at; i < at + length; i++) square += (x[i] - mean) ** 2 / length;
    return [mean, Math.sqrt(square + eps)];
  }
  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(scores, (score) => Math.exp(score - largest));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / total);
  }

  const OPERATIONS = {
    conv, linear, maxpool: pool, avgpool: pool, adaptive: pool, reshape: (node, [x]) => x,
    act(node, [x]) {
      const f = ACTIVATIONS[node.kind];
      const [a, b] = node.settings ?? [];
      const out = new Float32Array(x.length);
      if (node.kind === "relu") for (let i = 0; i < x.length; i++) out[i] = x[i] > 0 ? x[i] : 0;
      else if (node.kind === "hardtanh") for (let i = 0; i < x.length; i++) out[i] = x[i] < a ? a : x[i] > b ? b : x[i];
      else for (let i = 0; i < x.length; i++) out[i] = f(x[i], a, b);
      return out;
    },
    affine(node, [x], weights, [shape]) {
      const [scale, shift, area] = [weights[node.weight], weights[node.bias], perChannel(shape)];
      return x.map((value, i) => value * scale[Math.floor(i / area)] + shift[Math.floor(i / area)]);
    },
    binary(node, [x, y], weights, [one, other]) {
      const f = BINARY[node.kind];
      const right = node.constant ? weights[node.constant] : y;
      const alpha = node.alpha ?? 1;
      if (node.scalar != null) return x.map((value) => f(value, node.scalar * alpha));
      const shape = node.constant ? node.constant_shape : other;
      if (String(shape) === String(one)) {
        const out = new Float32Array(x.length);
        for (let i = 0; i < x.length; i++) out[i] = f(x[i], right[i] * alpha);
        return out;
      }
      const [p, q] = [places(node.shape, broadcast(one, node.shape)), places(node.shape, broadcast(shape, node.shape))];
      return Float32Array.from(p, (place, i) => f(x[place], right[q[i]] * alpha));
    },
    cat(node, values, weights, shapes) {
      const axis = axisOf(node.axis, node.shape);
      const out = new Float32Array(size(node.shape));
      const row = size(node.shape.slice(axis));
      let at = 0;
      values.forEach((x, i) => {
        const length = size(shapes[i].slice(axis));
        for (let p = 0, q = at; p < x.length; p += length, q += row) out.set(x.subarray(p, p + length), q);
        at += length;
      });
      return out;
    },
    permute: move, slice: move, gather: move,
    pad(node, [x], weights, [shape]) {
      const out = new Float32Array(size(node.shape)).fill(node.fill);
      const strides = stridesOf(node.shape);
      const start = strides.reduce((sum, step, axis) => sum + step * node.before[axis], 0);
      places(shape, strides, start).forEach((place, i) => (out[place] = x[i]));
      return out;
    },
    mean: reduce, norm: reduce,
    layer_norm(node, [x], weights, [shape]) {
      const [scale, shift, length] = [weights[node.weight], weights[node.bias], shape.at(-1)];
      const out = new Float32Array(x.length);
      for (let at = 0; at < x.length; at += length) {
        const [mean, deviation] = statistics(x, at, length, node.eps);
        for (let i = 0; i < length; i++) out[at + i] = ((x[at + i] - mean) / deviation) * (scale?.[i] ?? 1) + (shift?.[i] ?? 0);
      }
      return out;
    },
    lrn(node, [x], weights, [shape]) {
      const area = perChannel(shape);
      return x.map((value, i) => value / lrnScale(node, x, shape, Math.floor(i / area), i % area) ** node.beta);
    },
    softmax(node, [x]) {
      const [length, out] = [node.shape.at(-1), new Float32Array(x.length)];
      for (let at = 0; at < x.length; at += length) out.set(softmax(x.subarray(at, at + length)), at);
      return out;
    },
  };

  // An image of any size as `height` x `width`: each value is a mean weighted by a triangle as wide as what it stands for, as PyTorch's
  // interpolate(mode="bilinear", antialias=True) has it. `data` and the result are colour by colour.
  function resize(data, channels, fromHeight, fromWidth, height, width) {
    const line = (from, to) => range(to).map((i) => {
      const scale = from / to;
      const support = Math.max(scale, 1);
      const centre = scale * (i + 0.5);
      const first = Math.max(0, Math.floor(centre - support + 0.5));
      const last = Math.min(from, Math.floor(centre + support + 0.5));
      const parts = range(Math.max(1, last - first)).map((k) => Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)));
      const total = parts.reduce((a, b) => a + b, 0);
      return [first, parts.map((part) => part / total)];
    });
    const [rows, columns] = [line(fromHeight, height), line(fromWidth, width)];
    const middle = new Float32Array(channels * fromHeight * width);
    const out = new Float32Array(channels * height * width);
    for (let y = 0; y < channels * fromHeight; y++) columns.forEach(([first, parts], x) => {
      let sum = 0;
      for (let k = 0; k < parts.length; k++) sum += parts[k] * data[y * fromWidth + first + k];
      middle[y * width + x] = sum;
    });
    for (let c = 0; c < channels; c++) rows.forEach(([first, parts], y) => {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let k = 0; k < parts.length; k++) sum += parts[k] * middle[(c * fromHeight + first + k) * width + x];
        out[(c * height + y) * width + x] = sum;
      }
    });
    return out;
  }

  // The same of a square of bytes as a canvas gives them, red, green, blue and opacity of one place after another.
  function resizeBytes(bytes, side, channels, height, width) {
    const data = new Float32Array(channels * side * side);
    for (let c = 0, q = 0; c < channels; c++) for (let p = c; p < bytes.length; p += 4) data[q++] = bytes[p] / 255;
    return resize(data, channels, side, side, height, width);
  }

  // --- one network ---

  let [graph, weights, values] = [null, null, []];
  const shapeOf = (id) => graph.nodes[id].shape;
  const inputsOf = (node) => node.from.map((id) => values[id]);

  function load(newGraph, buffer) {
    for (const { op, layer } of newGraph.nodes.slice(1)) if (!OPERATIONS[op]) throw new Error(`${layer}: this page's engine lacks ${op}`);
    [graph, weights, values] = [newGraph, readWeights(buffer), []];
  }

  // All values for the pixels (colour by colour, 0 to 1). `off` lists what is switched off: "7:3", channel 3 of node 7, or "7<1", the
  // second input of node 7: zeros stand in its place.
  function forward(pixels, off = []) {
    const { mean, std, nodes } = graph;
    const area = pixels.length / mean.length;
    const all = [Float32Array.from(pixels, (value, i) => (value - mean[Math.floor(i / area)]) / std[Math.floor(i / area)])];
    const cut = new Set(off);
    const silent = {};
    for (const [, id, channel] of off.map((one) => /^(\d+):(\d+)$/.exec(one) ?? [])) if (id) (silent[id] ??= []).push(Number(channel));
    nodes.slice(1).forEach((node, i) => {
      const id = i + 1;
      const inputs = node.from.map((source, place) => (cut.has(`${id}<${place}`) ? new Float32Array(all[source].length) : all[source]));
      all[id] = OPERATIONS[node.op](node, inputs, weights, node.from.map(shapeOf));
      for (const channel of silent[id] ?? []) {
        const length = perChannel(node.shape);
        if (all[id] === inputs[0]) all[id] = all[id].slice();
        all[id].fill(0, channel * length, (channel + 1) * length);
      }
    });
    return all;
  }

  function run(pixels, off) {
    values = forward(pixels, off);
    return [...softmax(values.at(-1))];
  }

  // How element `at` of value `id` was made: result = bias + sum of value times weight over `terms`, or, by `rule`, the "max" of
  // the terms, or an activation of the only one ("act").
  function explain(id, at) {
    const node = graph.nodes[id];
    if (!id) return { rule: "input", bias: 0, terms: [], result: values[0][at] };
    const [source] = node.from;
    const [x] = inputsOf(node);
    const shape = shapeOf(source);
    const [C, H, W] = [1, 2, 3].map((axis) => shape[axis] ?? 1);
    const area = perChannel(node.shape);
    const channel = Math.floor(at / area);
    const [row, column] = [Math.floor((at % area) / (node.shape[3] ?? 1)), at % (node.shape[3] ?? 1)];
    const term = (place, weight, from = source) => ({ from, at: place, value: values[from][place], weight });
    const answer = (terms, more) => ({ rule: "sum", bias: 0, ...more, terms, result: values[id][at] });
    switch (node.op) {
      case "conv": {
        const { groups, kernel: [KH, KW], stride, padding, dilation } = node;
        const inputs = C / groups;
        const first = Math.floor(channel / (node.shape[1] / groups)) * inputs;
        const terms = [];
        for (let k = 0; k < inputs; k++) for (let i = 0; i < KH; i++) for (let j = 0; j < KW; j++) {
          const [y, z] = [row * stride[0] - padding[0] + i * dilation[0], column * stride[1] - padding[1] + j * dilation[1]];
          const weight = weights[node.weight][((channel * inputs + k) * KH + i) * KW + j];
          const outside = y < 0 || y >= H || z < 0 || z >= W;
          terms.push(outside ? { from: source, at: -1, value: 0, weight } : term(((first + k) * H + y) * W + z, weight));
        }
        return answer(terms, { bias: weights[node.bias]?.[channel] ?? 0, kernel: [KH, KW], channels: range(inputs).map((k) => first + k) });
      }
      case "linear": {
        const rows = node.shape.at(-1);
        const [depth, r] = [weights[node.weight].length / rows, at % rows];
        const start = Math.floor(at / rows) * depth;
        return answer(range(depth).map((k) => term(start + k, weights[node.weight][r * depth + k])), { bias: weights[node.bias]?.[r] ?? 0 });
      }
      case "maxpool": case "avgpool": case "adaptive": {
        const [[y0, y1, yStep, high], [x0, x1, xStep, wide]] = [window(node, 0, row, H), window(node, 1, column, W)];
        const terms = [];
        for (let y = y0; y <= y1; y += yStep) for (let z = x0; z <= x1; z += xStep) {
          terms.push(term((channel * H + y) * W + z, node.op === "maxpool" ? 1 : 1 / (node.divisor ?? high * wide)));
        }
        return answer(terms, { rule: node.op === "maxpool" ? "max" : "sum" });
      }
      case "act": return answer([term(at, 1)], { rule: "act", kind: node.kind });
      case "affine": return answer([term(at, weights[node.weight][channel])], { bias: weights[node.bias][channel] });
      case "layer_norm": {
        const length = shape.at(-1);
        const [mean, deviation] = statistics(x, at - (at % length), length, node.eps);
        const weight = (weights[node.weight]?.[at % length] ?? 1) / deviation;
        return answer([term(at, weight)], { bias: (weights[node.bias]?.[at % length] ?? 0) - mean * weight });
      }
      case "lrn": return answer([term(at, lrnScale(node, x, shape, channel, at % area) ** -node.beta)]);
      case "mean": case "norm": { // a norm is the sum of its values times what each is of it
        const [found, count] = reduced(node, shape);
        return answer([...found.slice(at * count, (at + 1) * count)].map((place) =>
          term(place, node.op === "mean" ? 1 / count : x[place] / (values[id][at] || 1))));
      }
      case "permute": case "slice": case "gather": return answer([term(moved(node, shape)[at], 1)]);
      case "binary": {
        const place = (shape) => places(node.shape, broadcast(shape, node.shape))[at];
        const own = place(shape);
        const other = node.scalar ?? (node.constant ? weights[node.constant][place(node.constant_shape)] : values[node.from[1]][place(shapeOf(node.from[1]))]);
        const alpha = other * (node.alpha ?? 1);
        if (node.kind === "mul") return answer([term(own, other)]);
        if (node.kind === "div") return answer([term(own, 1 / other)]);
        const sign = (node.kind === "sub" ? -1 : 1) * (node.alpha ?? 1);
        if (node.from.length < 2) return answer([term(own, 1)], { bias: node.kind === "sub" ? -alpha : alpha });
        return answer([term(own, 1), term(place(shapeOf(node.from[1])), sign, node.from[1])]);
      }
      case "cat": {
        const axis = axisOf(node.axis, node.shape);
        const [row, inner] = [size(node.shape.slice(axis)), size(node.shape.slice(axis + 1))];
        let left = Math.floor((at % row) / inner);
        for (const from of node.from) {
          const length = shapeOf(from)[axis];
          if (left < length) return answer([term((Math.floor(at / row) * length + left) * inner + (at % inner), 1, from)]);
          left -= length;
        }
      }
      // falls through: an element of no input
      case "pad": {
        const inner = stridesOf(shape);
        const index = stridesOf(node.shape).map((step, axis) => (Math.floor(at / step) % node.shape[axis]) - node.before[axis]);
        if (index.some((i, axis) => i < 0 || i >= shape[axis])) return answer([], { bias: Number(node.fill) });
        return answer([term(index.reduce((sum, i, axis) => sum + i * inner[axis], 0), 1)]);
      }
      case "softmax": return answer([...x].map((_, i) => term(i, 1)), { rule: "softmax" });
      default: return answer([term(at, 1)]);
    }
  }

  // What channel `k` of the input adds to a map of a convolution, everywhere: the sum of these and the bias is the map.
  function part(id, channel, k) {
    const node = graph.nodes[id];
    const [source] = node.from;
    const [, C, H, W] = shapeOf(source);
    const [inputs, area] = [C / node.groups, node.kernel[0] * node.kernel[1]];
    const at = (channel * inputs + (k % inputs)) * area;
    return conv({ ...node, groups: 1, weight: "w", bias: "", shape: [1, 1, ...node.shape.slice(2)] }, [values[source].subarray(k * H * W, (k + 1) * H * W)],
      { w: weights[node.weight].subarray(at, at + area) }, [[1, 1, H, W]]);
  }

  // First and last row and column of the picture from which element `at` of value `id` was made, padding included.
  function field(id, at) {
    const spans = []; // for each value: [first, last] along every axis
    const join = (to, found) => (spans[to] = spans[to] ? spans[to].map(([a, b], axis) => [Math.min(a, found[axis][0]), Math.max(b, found[axis][1])]) : found);
    join(id, stridesOf(shapeOf(id)).map((step, axis) => [Math.floor(at / step) % shapeOf(id)[axis], Math.floor(at / step) % shapeOf(id)[axis]]));
    for (let i = id; i > 0; i--) {
      if (!spans[i]) continue;
      const [node, own] = [graph.nodes[i], spans[i]];
      let before = 0;
      for (const from of node.from) {
        const shape = shapeOf(from);
        const every = shape.map((length) => [0, length - 1]);
        const part = (change) => every.map((all, axis) => change(own[axis], axis, all));
        let found = every;
        if (["conv", "maxpool", "avgpool"].includes(node.op)) {
          found = part(([first, last], axis, all) => {
            if (axis < 2) return node.op === "conv" || axis < 1 ? all : [first, last];
            const [kernel, stride, padding, step] = ["kernel", "stride", "padding", "dilation"].map((name) => node[name]?.[axis - 2] ?? 1);
            return [first * stride - padding, last * stride - padding + step * (kernel - 1)];
          });
        } else if (node.op === "adaptive") {
          found = part((span, axis, all) => (axis < 2 ? span : [window(node, axis - 2, span[0], shape[axis])[0], window(node, axis - 2, span[1], shape[axis])[1]]));
        } else if (node.op === "linear" || node.op === "layer_norm" || node.op === "softmax") {
          found = part((span, axis, all) => (axis === shape.length - 1 ? all : span));
        } else if (node.op === "permute") {
          node.order.forEach((axis, to) => (found[axis] = own[to]));
        } else if (node.op === "slice") {
          found = part(([first, last], axis) => (axis === axisOf(node.axis, shape)
            ? [node.start + first * node.step, node.start + last * node.step] : [first, last]));
        } else if (node.op === "gather") {
          found = part(([first, last], axis) => {
            const all = node.index[axis]?.slice(first, last + 1);
            return all ? [Math.min(...all), Math.max(...all)] : [first, last];
          });
        } else if (node.op === "pad") {
          found = part(([first, last], axis) => [first - node.before[axis], last - node.before[axis]]);
        } else if (node.op === "cat") {
          const axis = axisOf(node.axis, shape);
          const length = shape[axis];
          const [first, last] = [Math.max(own[axis][0], before), Math.min(own[axis][1], before + length - 1)];
          before += length;
          if (first > last) continue;
          found = part((span, i) => (i === axis ? [first - before + length, last - before + length] : span));
        } else if (node.op === "mean" || node.op === "norm") {
          const axes = node.axes.map((axis) => axisOf(axis, shape));
          const kept = range(shape.length).filter((axis) => !axes.includes(axis));
          kept.forEach((axis, i) => (found[axis] = own[node.shape.length === shape.length ? axis : i]));
        } else if (node.op === "reshape") { // what keeps the rows and columns keeps their spans
          if (shape.length > 3 && String(shape.slice(-2)) === String(node.shape.slice(-2))) found.splice(-2, 2, ...own.slice(-2));
        } else if (node.op === "lrn") {
          found = part((span, axis, all) => (axis === 1 ? all : span));
        } else { // value by value; what is broadcast is asked for once
          const shift = node.shape.length - shape.length;
          found = every.map((all, axis) => (shape[axis] === 1 ? all : own[axis + shift]));
        }
        join(from, found);
      }
    }
    return (spans[0] ?? shapeOf(0).map((length) => [0, length - 1])).slice(-2);
  }

  // Gradient of the score of a class with respect to value `stop`; every path from there to the scores must be of the operations below.
  function gradient(target, stop) {
    const grads = [];
    grads[graph.nodes.length - 1] = new Float64Array(values.at(-1).length);
    grads.at(-1)[target] = 1;
    for (let id = graph.nodes.length - 1; id > stop; id--) {
      if (!grads[id]) continue;
      const [node, g] = [graph.nodes[id], grads[id]];
      const into = (source) => (grads[source] ??= new Float64Array(values[source].length));
      const whole = (node.op === "linear" || node.op === "softmax") && node.shape.length === 2;
      if (whole && node.op === "linear") {
        const [weight, to] = [weights[node.weight], into(node.from[0])];
        for (let r = 0; r < g.length; r++) if (g[r]) for (let k = 0; k < to.length; k++) to[k] += g[r] * weight[r * to.length + k];
      } else if (node.op === "reshape") {
        const to = into(node.from[0]);
        g.forEach((value, i) => (to[i] += value));
      } else if (node.op === "layer_norm") {
        const [x, to, length] = [values[node.from[0]], into(node.from[0]), node.shape.at(-1)];
        for (let at = 0; at < g.length; at += length) {
          const [mean, deviation] = statistics(x, at, length, node.eps);
          const scaled = range(length).map((i) => g[at + i] * (weights[node.weight]?.[i] ?? 1));
          const normal = range(length).map((i) => (x[at + i] - mean) / deviation);
          const [average, slope] = [0, 1].map((power) => scaled.reduce((sum, value, i) => sum + value * normal[i] ** power, 0) / length);
          scaled.forEach((value, i) => (to[at + i] += (value - average - normal[i] * slope) / deviation));
        }
      } else if (["act", "maxpool", "avgpool", "adaptive", "mean", "norm", "affine", "binary", "permute", "slice", "gather", "cat"].includes(node.op)) {
        if (node.op === "binary" && node.kind === "mul" && node.from.length > 1) throw new Error("the gradient through a gate is not computed");
        g.forEach((value, at) => {
          if (!value) return;
          const { rule, terms, kind } = explain(id, at);
          const best = rule === "max" && terms.findIndex((one) => one.value === values[id][at]);
          terms.forEach((one, i) => {
            let slope = one.weight;
            if (rule === "max") slope = i === best ? 1 : 0;
            if (rule === "act") {
              const f = (z) => ACTIVATIONS[kind](z, ...(node.settings ?? []));
              slope = kind === "relu" ? Number(one.value > 0) : (f(one.value + 1e-4) - f(one.value - 1e-4)) / 2e-4;
            }
            if (one.at >= 0) into(one.from)[one.at] += value * slope;
          });
        });
      } else throw new Error(`the gradient through ${node.op} is not computed`);
    }
    return grads[stop];
  }

  // The last maps with more than one place, and where they speak for a class (Selvaraju et al. 2017): the sum of the maps, each
  // weighted by the mean of the gradient of the class's score, cut at zero.
  function camNode() {
    return graph.nodes.findLastIndex(({ shape }) => shape.length === 4 && shape[2] > 1 && shape[3] > 1);
  }
  function gradCam(target) {
    const id = camNode();
    const [, C, H, W] = shapeOf(id);
    const g = gradient(target, id);
    const map = new Float64Array(H * W);
    for (let c = 0; c < C; c++) {
      let weight = 0;
      for (let i = 0; i < H * W; i++) weight += g[c * H * W + i] / (H * W);
      for (let i = 0; i < H * W; i++) map[i] += weight * values[id][c * H * W + i];
    }
    return { node: id, height: H, width: W, map: [...map.map((value) => Math.max(0, value))] };
  }

  // Probability of a class while a grey square (the mean colour) hides a part of the picture: `cells` x `cells` squares, each
  // twice as wide as the step from one to the next.
  function occlusion(pixels, target, cells, off) {
    const [, C, H, W] = shapeOf(0);
    const map = [];
    for (let i = 0; i < cells; i++) for (let j = 0; j < cells; j++) {
      const hidden = Float32Array.from(pixels);
      const [y0, y1] = [i - 0.5, i + 1.5].map((place) => clamp(Math.round((place * H) / cells), 0, H));
      const [x0, x1] = [j - 0.5, j + 1.5].map((place) => clamp(Math.round((place * W) / cells), 0, W));
      for (let c = 0; c < C; c++) for (let y = y0; y < y1; y++) hidden.fill(graph.mean[c], (c * H + y) * W + x0, (c * H + y) * W + x1);
      map.push(softmax(forward(hidden, off).at(-1))[target]);
    }
    return { height: cells, width: cells, map };
  }

  // Some products before a network comes: a browser compiles what has run for a while.
  function warm() {
    halves ??= everyHalf();
    const shape = [1, 16, 32, 32];
    for (const side of [3, 1, 3, 3]) {
      const node = { op: "conv", shape, weight: "w", bias: "b", kernel: [side, side], stride: [1, 1], padding: [side >> 1, side >> 1], dilation: [1, 1], groups: 1 };
      for (let i = 0; i < 2; i++) conv(node, [new Float32Array(size(shape))], { w: new Float32Array(256 * side * side), b: new Float32Array(16) }, [shape]);
    }
  }

  return { warm, readWeights, load, run, resize, resizeBytes, explain, part, field, gradient, gradCam, occlusion, camNode, value: (id) => values[id], shape: shapeOf };
}
