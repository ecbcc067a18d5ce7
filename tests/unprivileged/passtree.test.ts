import { expect } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { passTree } from "../../src/formats/passtree.ts";
import { refusal } from "../formats/foreign.ts";
import { testUnprivileged } from "../support/skip.ts";

testUnprivileged("entries and directories that may not be read are a fault that names them", async () => {
  const root = mkdtempSync(join(tmpdir(), "keyhold-pass-"));
  try {
    writeFileSync(join(root, "a.age"), "x", { mode: 0 });
    const file = await refusal(passTree, root, { identities: [] });
    expect(file).toMatchObject({ code: "bad_input", why: '"a" cannot be opened' });
    rmSync(join(root, "a.age"));
    mkdirSync(join(root, "d"), { mode: 0 });
    const directory = await refusal(passTree, root, { identities: [] });
    expect(directory).toMatchObject({ code: "bad_input", why: "a directory of it cannot be opened" });
    chmodSync(join(root, "d"), 0o700);
  } finally {
    rmSync(root, { recursive: true });
  }
});
