import { expect, test } from "bun:test";
import { liveBlock } from "../../src/ui/liveblock.ts";
import { createOutput } from "../../src/ui/output.ts";

function drawn(size = { columns: 20, rows: 10 }) {
  let shown = "";
  const write = (_fd: 1 | 2, bytes: Uint8Array) => {
    shown += new TextDecoder().decode(bytes);
  };
  const out = createOutput({ json: false, quiet: false, verbose: false, color: "never", env: {}, write });
  const block = liveBlock(out, () => size);
  return {
    block,
    take() {
      const now = shown;
      shown = "";
      return now;
    },
  };
}

test("a block is drawn over itself, and not again where nothing changed", () => {
  const { block, take } = drawn();
  block.show(["a", "b"]);
  expect(take()).toBe("\r\u001b[Ja\nb\n");
  block.show(["a", "b"]);
  expect(take()).toBe("");
  block.show(["c"]);
  expect(take()).toBe("\r\u001b[2A\u001b[Jc\n");
  block.show(["d"]);
  expect(take()).toBe("\r\u001b[1A\u001b[Jd\n");
  block.end();
  block.show(["e"]);
  expect(take()).toBe("\r\u001b[Je\n");
});

test("no line wraps and no block scrolls, since rows could not be counted then", () => {
  const { block, take } = drawn({ columns: 10, rows: 4 });
  block.show(["abcdefghijklmnop", "漢字漢字漢字漢字", "three"]);
  const [first = "", second = "", ...more] = take().split("\u001b[J")[1]?.split("\n") ?? [];
  expect([first, more]).toEqual(["abcdefgh…", [""]]);
  for (const line of [first, second]) expect(Bun.stringWidth(line)).toBeLessThan(10);
});

test("what others wrote moves nothing", () => {
  const { block, take } = drawn({ columns: 80, rows: 10 });
  block.show(["a\u001b[2J\rb"]);
  expect(take()).toBe("\r\u001b[Ja\\x1b[2J\\rb\n");
});
