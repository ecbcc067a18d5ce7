import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addProfile, localProfile } from "../../src/client/profile.ts";
import { endLines } from "../../src/commands/ceremonyverify.ts";
import { encodeOpening, encodeTranscript } from "../../src/wire/ceremony/transcript.ts";
import { run, withDirectory } from "../cli/support.ts";
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
    expect(out).toContain("– server       no vault here pins a server; compare its pin: sha256:");
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
    // what is no pin at all is a slip of the hand, and no other server
    for (const pin of ["foo", `${PIN}A`, PIN.slice(0, -1)]) {
      const slip = await verify(file, "--pin", pin, "--json");
      expect([slip.code, errorOf(slip).code]).toEqual([2, "bad_input"]);
    }
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
    const other = await verify(file, "--opening", wrong, "--json");
    expect([other.code, errorOf(other).hint]).toEqual([8, expect.stringContaining("opening")]);
    const foreign = "11".repeat(32) as typeof world.ceremonyId;
    writeFileSync(wrong, encodeOpening({ ceremonyId: foreign, index: 1, opening: new Uint8Array(32) }));
    expect((await verify(file, "--opening", wrong, "--json")).code).toBe(2);
    expect((await verify(file, "--opening", file, "--json")).code).toBe(2);
    expect((await verify(file, "--opening", join(dir, "none"), "--opening", first, "--json")).code).toBe(3);
    expect((await verify(join(dir, "none"), "--json")).code).toBe(3);
  });
});

test("how a run was aborted is not ticked off: that nothing else came is the server's word", async () => {
  const texts = {
    absent: "that nobody else came in time is the server's word",
    withheld: "that nothing else came in time is the server's word",
    lied: "that opening is signed, that it does not fit is the server's word",
    closed: "that its organiser wished it is the server's word",
    failed: "that no key can be made of it is the server's word",
  };
  for (const [reason, text] of Object.entries(texts)) {
    const [line] = endLines({ result: null, aborted: { reason: reason as never, culprits: ["bob"] } }, 3);
    expect(line).toBe(`– end          aborted: ${reason} (bob); ${text}`);
  }
  expect(endLines({ result: null, aborted: { reason: "closed", culprits: [] } }, 3)[0]).toStartWith(
    "– end          aborted: closed; ",
  );
});

test("an open vault sees that it was counted; one that took no part, and one that is locked, are said", async () => {
  const { participants } = dataOf(await verify(file, "--json"));
  const [first] = participants;
  const own = { index: 1, publicKeyHex: first.keyHex, commitmentHex: first.commitmentHex };
  await withHome({ ceremonyOwn: async () => own }, async (home) => {
    const ran = await home.run(["ceremony", "verify", file, "--json"]);
    expect([ran.code, dataOf(ran).ownIndex, dataOf(ran).ownChecked]).toEqual([0, 1, true]);
    expect((await home.run(["ceremony", "verify", file])).out).toContain("the one with which this vault took part");
    expect(home.calls.slice(1)).toEqual([{ method: "ceremonyOwn", input: { ceremonyId: world.ceremonyId } }]);
  });
  await withHome({ ceremonyOwn: async () => ({ ...own, commitmentHex: "00".repeat(32) }) }, async (home) => {
    const ran = await home.run(["ceremony", "verify", file, "--json"]);
    expect([ran.code, errorOf(ran).message]).toEqual([8, expect.stringContaining("not the commitment that you made")]);
  });
  await withHome({ ceremonyOwn: async () => null }, async (home) => {
    expect((await home.run(["ceremony", "verify", file])).out).toContain("this vault took no part");
  });
});

test("a profile's pin is compared without a password: the same server, that of another profile, another one", async () => {
  const { serverPin } = dataOf(await verify(file, "--json"));
  await withDirectory(async (home) => {
    const profiles = join(home, "config", "profiles");
    const account = async (name: string, pin: string) => {
      const server = { url: "https://keys.example:7443", pin, caPem: null, tlsCaPem: null, statementNumber: 0 };
      await addProfile(profiles, { ...localProfile(name, "test", `${name}.vault`), server });
    };
    const said = async (...argv: string[]) => {
      const { code, out } = await run(["ceremony", "verify", file, ...argv], { env: { KEYHOLD_HOME: home } });
      expect(code).toBe(0);
      return argv.includes("--json") ? JSON.parse(out).data.pinnedBy : out;
    };
    await account("other", PIN);
    expect(await said()).toContain(`! server       not https://keys.example:7443, which your vault pins; compare`);
    expect(await said("--json")).toBeNull();
    await account("work", serverPin);
    expect(await said()).toContain("✔ server       the one that your profile work pins");
    expect(await said("--profile", "work")).toContain("✔ server       the one that your vault pins");
    expect(await said("--json")).toBe("work");
    // one that cannot be read hinders nothing
    writeFileSync(join(profiles, "broken.json"), "{");
    expect(await said("--json")).toBe("work");
  });
});
