// The weights of a model in one memory, and products with them. No library.

"use strict";

function fromBase64(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// Where WebAssembly is missing: the same product, row by row.
function multiplyInScript(memory, w, s, x, y, rows, columns) {
  const weights = new Int8Array(memory, w, rows * columns), scales = new Float32Array(memory, s, rows);
  const input = new Float32Array(memory, x, columns), output = new Float32Array(memory, y, rows);
  for (let i = 0, k = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += weights[k++] * input[j];
    output[i] = sum * scales[i];
  }
}

// Put all weights in one memory, which the kernel sees. Matrices are rows of bytes, padded with zeros
// to a multiple of eight, and one scale a row; all else is float32.
function loadWeights(table, bytes, kernel) {
  const widest = Math.max(...table.map((t) => Math.max(...t.shape))) + 8;
  const size = bytes.length + 8 * widest;
  let memory, run = null;
  try {
    const made = new WebAssembly.Instance(new WebAssembly.Module(kernel)).exports;
    made.m.grow(Math.ceil(size / 65536));
    memory = made.m.buffer;
    run = made.q;
  } catch {
    memory = new ArrayBuffer(size + 8);
  }
  new Uint8Array(memory).set(bytes);
  const x = Math.ceil(bytes.length / 8) * 8, y = x + 4 * widest;
  const input = new Float32Array(memory, x, widest), tensors = {};
  for (const { name, shape, at, scales } of table) {
    if (shape.length === 1) {
      tensors[name] = new Float32Array(memory, at, shape[0]);
      continue;
    }
    const [rows, columns] = shape, padded = Math.ceil(columns / 8) * 8;
    const weights = new Int8Array(memory, at, rows * padded);
    const scale = new Float32Array(memory, scales, rows);
    tensors[name] = {
      times(vector, bias) { // (columns) -> (rows)
        input.set(vector);
        input.fill(0, columns, padded);
        if (run) run(at, scales, x, y, rows, padded);
        else multiplyInScript(memory, at, scales, x, y, rows, padded);
        const result = new Float32Array(memory, y, rows).slice();
        if (bias) for (let i = 0; i < rows; i++) result[i] += bias[i];
        return result;
      },
      row(i) {
        return Float32Array.from(weights.subarray(i * padded, i * padded + columns), (w) => w * scale[i]);
      },
    };
  }
  return { tensors, fast: run !== null };
}
