import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeOpening, encodeTranscript } from "../../src/wire/ceremony/transcript.ts";
import { run } from "../cli/support.ts";
import { type PureCeremony, pureCeremony } from "../support/pureceremony.ts";
import { seeded } from "../support/seeded.ts";
import { dataOf, errorOf, PIN, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(30_000);
let dir: string;
let world: PureCeremony;
let file: string;
const openings: string[] = [];

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-verify-"));
  mkdirSync(join(dir, "home"));
  const random = seeded(7);
  world = await pureCeremony({ random: (length) => random.bytes(length), participants: 3 });
  file = join(dir, "t.jsonl");
  writeFileSync(file, encodeTranscript(await world.go("stored")));
  for (const { index, opening } of world.participants) {
    const path = join(dir, `${index}.opening`);
    writeFileSync(path, encodeOpening({ ceremonyId: world.ceremonyId, index, opening }));
    openings.push("--opening", path);
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const verify = (...argv: string[]) =>
  run(["ceremony", "verify", ...argv], { env: { KEYHOLD_HOME: join(dir, "home") } });

/** A damaged copy of the transcript. */
function changed(change: (lines: string[]) => string[]): string {
  const path = join(dir, "changed.jsonl");
  const lines = new TextDecoder().decode(encodeTranscript(world.transcript())).trimEnd().split("\n");
  writeFileSync(path, `${change(lines).join("\n")}\n`);
  return path;
}

describe("ceremony verify, without a server, an account or a vault", () => {
  test("says line by line what was checked, and what was not", async () => {
    const { code, out } = await verify(file);
    expect(code).toBe(0);
    for (const line of ["✔ file", "✔ order", "✔ signatures", "✔ commitments  3", "✔ end          all 3 revealed"]) {
      expect(out).toContain(line);
    }
    expect(out).toContain("– you          not checked: there is no vault here");
    expect(out).toContain("– key          not computed anew: it takes the openings of alice, bob, carol");
    expect(out).toContain("– server       compare its pin: sha256:");
  });

  test("with all openings computes the key anew; with some it says whose are missing", async () => {
    const all = await verify(file, ...openings, "--json");
    expect([all.code, dataOf(all).recomputed, dataOf(all).status]).toEqual([0, true, "stored"]);
    const some = await verify(file, ...openings.slice(0, 4));
    expect([some.code, some.out.includes("it takes the openings of carol")]).toEqual([0, true]);
    expect(all.out).not.toContain(world.participant(1).opening.toHex());
  });

  test("pin and participant that are given must be its own", async () => {
    const { serverPin, participants } = dataOf(await verify(file, "--json"));
    const good = await verify(file, "--pin", serverPin, "--participant", participants[1].keyHex.toUpperCase());
    expect([good.code, good.out.includes("✔ you          number 2"), good.out.includes("✔ server")]).toEqual([
      0,
      true,
      true,
    ]);
    const other = await verify(file, "--pin", PIN, "--json");
    expect([other.code, errorOf(other).code]).toEqual([7, "pin_mismatch"]);
    const absent = await verify(file, "--participant", "ab".repeat(32), "--json");
    expect([absent.code, errorOf(absent).code]).toEqual([8, "integrity"]);
    expect((await verify(file, "--participant", "abc", "--json")).code).toBe(2);
  });

  test("what does not hold ends with exit 8, with line and record", async () => {
    for (const change of [
      (lines: string[]) => lines.map((line) => line.replace('"index":3', '"index":2')),
      (lines: string[]) => lines.toSpliced(2, 1),
      (lines: string[]) => lines.slice(0, -1),
      () => [""],
    ]) {
      const ran = await verify(changed(change), "--json");
      expect([ran.code, errorOf(ran).code, ran.out]).toEqual([8, "integrity", ""]);
      expect(errorOf(ran).message).toMatch(/^line \d+, /);
    }
  });

  test("openings of others, or changed ones, are refused", async () => {
    const [, first = ""] = openings;
    const wrong = join(dir, "wrong.opening");
    writeFileSync(wrong, encodeOpening({ ceremonyId: world.ceremonyId, index: 1, opening: new Uint8Array(32) }));
    expect((await verify(file, "--opening", wrong, "--json")).code).toBe(8);
    const foreign = "11".repeat(32) as typeof world.ceremonyId;
    writeFileSync(wrong, encodeOpening({ ceremonyId: foreign, index: 1, opening: new Uint8Array(32) }));
    expect((await verify(file, "--opening", wrong, "--json")).code).toBe(2);
    expect((await verify(file, "--opening", file, "--json")).code).toBe(2);
    expect((await verify(file, "--opening", join(dir, "none"), "--opening", first, "--json")).code).toBe(3);
    expect((await verify(join(dir, "none"), "--json")).code).toBe(3);
  });
});

test("an open vault sees that it was counted; one that took no part, and one that is locked, are said", async () => {
  const { participants } = dataOf(await verify(file, "--json"));
  const [first] = participants;
  const own = { index: 1, publicKeyHex: first.keyHex, commitmentHex: first.commitmentHex };
  await withHome({ ceremonyOwn: async () => own }, async (home) => {
    const ran = await home.run(["ceremony", "verify", file, "--json"]);
    expect([ran.code, dataOf(ran).ownIndex, dataOf(ran).ownChecked]).toEqual([0, 1, true]);
    expect(home.calls).toEqual([{ method: "ceremonyOwn", input: { ceremonyId: world.ceremonyId } }]);
  });
  await withHome({ ceremonyOwn: async () => ({ ...own, commitmentHex: "00".repeat(32) }) }, async (home) => {
    const ran = await home.run(["ceremony", "verify", file, "--json"]);
    expect([ran.code, errorOf(ran).message]).toEqual([8, expect.stringContaining("not the commitment that you made")]);
  });
  await withHome({ ceremonyOwn: async () => null }, async (home) => {
    expect((await home.run(["ceremony", "verify", file])).out).toContain("this vault took no part");
  });
});
