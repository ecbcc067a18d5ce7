import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import {
  type CeremonyServer,
  ceremonyServer,
  codeOf,
  join1,
  joinOf,
  kindsOf,
  opened,
  type Run,
  reveal1,
  revealOf,
  statusOf,
  transcriptOf,
} from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

const broken = () => new Fault("storage", "the disk is full");

/** A client that gives the same command again. */
async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; attempt < 4; attempt++) {
    const done = await work().catch((error: unknown) => {
      if (error instanceof Fault && (error.code === "storage" || error.code === "unavailable")) return undefined;
      throw error;
    });
    if (done !== undefined) return done;
  }
  throw new Error("it never worked");
}

/** A whole run of two, everything given again where it fails; the process dies with each failure. */
async function run(after: () => void): Promise<Run> {
  const drafted = await insist(() => opened(server, 2));
  after();
  for (const p of drafted.participants) await insist(() => join1(server, drafted, p));
  for (const p of drafted.participants) {
    const input = await insist(() => revealOf(server, drafted, p));
    await insist(() => server.call("ceremony.reveal", input));
  }
  // a combination that failed is tried again later
  for (const _ of [1, 2, 3]) {
    await insist(() => server.sweep().then(() => true));
    if ((await insist(() => server.call("ceremony.get", { ceremonyId: drafted.id, after: 0 }))).status !== "combine")
      break;
    server.nowMs += 30_000;
  }
  return drafted;
}

describe("a ceremony", () => {
  test.each(["without trace", "durably, but without an answer"])(
    "survives each transaction that fails %s",
    async (how) => {
      let total = 0;
      server.hooked.around = (work) => {
        total += 1;
        return work();
      };
      await run(() => {
        total = 0;
      });
      const steps = total;
      expect(steps).toBeGreaterThan(20);
      for (let failing = 1; failing <= steps; failing++) {
        let count = 0;
        server.hooked.around = null;
        const done = await run(() => {
          server.hooked.around = async (work) => {
            count += 1;
            if (count !== failing) return work();
            if (how !== "without trace") await work();
            server.crash();
            throw broken();
          };
        });
        server.hooked.around = null;
        expect(await kindsOf(server, done)).toEqual(["join", "join", "freeze", "reveal", "reveal", "result"]);
        await verifyTranscript(await transcriptOf(server, done));
      }
    },
    120_000,
  );

  test("survives an enclave that dies at each question, and asks it again", async () => {
    const first = await run(() => {
      server.asked.length = 0;
    });
    const steps = server.asked.length;
    expect(await statusOf(server, first)).toBe("stored");
    for (let failing = 1; failing <= steps; failing++) {
      let count = 0;
      const done = await run(() => {
        server.before = () => {
          count += 1;
          if (count !== failing) return;
          server.crash();
          throw new Fault("unavailable", "the enclave restarted");
        };
      });
      server.before = () => undefined;
      expect(await statusOf(server, done)).toBe("stored");
    }
  });

  test("does what its organiser asked for, though the enclave died at it", async () => {
    const close = async (abort: boolean) => {
      const done = await opened(server, 3, { minimum: 2 });
      for (const index of [1, 2]) await join1(server, done, done.one(index));
      server.before = () => {
        throw new Fault("unavailable", "the enclave restarted");
      };
      expect(await codeOf(server.call("ceremony.close", { ceremonyId: done.id, abort }))).toBe("unavailable");
      // nothing else happens before it
      expect(await codeOf(join1(server, done, done.one(3)))).toBe("unavailable");
      server.before = () => undefined;
      server.crash();
      await server.sweep();
      return kindsOf(server, done);
    };
    expect(await close(false)).toEqual(["join", "join", "freeze"]);
    expect(await close(true)).toEqual(["join", "join", "abort"]);
  });

  test("names the liar after a crash, though nobody sends the lie again", async () => {
    const done = await opened(server, 2);
    for (const p of done.participants) await join1(server, done, p);
    const lie = await revealOf(server, done, done.one(1), new Uint8Array(32));
    // the enclave has said its word; what it signed was not written
    let asked = false;
    server.before = () => {
      asked = true;
    };
    server.hooked.around = async (work) => {
      if (asked) throw broken();
      return work();
    };
    expect(await codeOf(server.call("ceremony.reveal", lie))).toBe("storage");
    server.hooked.around = null;
    server.crash();
    expect(await codeOf(reveal1(server, done, done.one(2)))).toBe("conflict");
    const last = (await transcriptOf(server, done)).entries.at(-1)?.entry.body;
    expect(last).toMatchObject({ kind: "abort", reason: "lied", culprits: [1] });
  });

  test("of which no key can be made ends after three tries, and says so", async () => {
    const done = await opened(server, 2);
    for (const p of done.participants) await join1(server, done, p);
    server.before = (operation, input) => {
      const step = operation === "ceremony.append" && (input as { step: { kind: string } }).step.kind;
      if (step === "combine") throw new Fault("internal", "no prime was found");
    };
    for (const p of done.participants) await reveal1(server, done, p);
    for (const expected of ["combine", "combine", "aborted"] as const) {
      await server.sweep();
      expect(await statusOf(server, done)).toBe(expected);
      // not tried again at once, whoever looks
      const tries = server.asked.length;
      await statusOf(server, done);
      expect(server.asked.length).toBe(tries);
      server.nowMs += 30_000;
    }
    expect((await transcriptOf(server, done)).entries.at(-1)?.entry.body).toMatchObject({ reason: "failed" });
  });

  test("keeps no seed and no opening in clear, at any time", async () => {
    const seen: string[] = [];
    server.hooked.hook = (method, args, work) => {
      if (method === "putDocument") seen.push(new TextDecoder().decode((args[0] as { body: Uint8Array }).body));
      return work(...args);
    };
    const done = await run(() => undefined);
    const all = seen.join("\n");
    expect(all).toContain("ceremonyId");
    for (const { opening } of done.participants)
      for (const text of [
        opening.toBase64(),
        opening.toBase64({ alphabet: "base64url", omitPadding: true }),
        opening.toHex(),
      ])
        expect(all).not.toContain(text);
    const { entries } = await transcriptOf(server, done);
    const freeze = entries.find(({ entry }) => entry.body.kind === "freeze")?.entry.body;
    const seed = freeze?.kind === "freeze" ? freeze.seed : new Uint8Array(32);
    // it is public with the freeze, and not before
    const before = seen
      .slice(
        0,
        seen.findIndex((body) => body.includes('"freeze"')),
      )
      .join("\n");
    expect(before.length).toBeGreaterThan(1_000);
    for (const text of [seed.toBase64(), seed.toBase64({ alphabet: "base64url", omitPadding: true }), seed.toHex()])
      expect(before).not.toContain(text);
  });
});

test("a hundred participants finish", async () => {
  const done = await opened(server, 100);
  for (const p of done.participants) await join1(server, done, p);
  for (const p of done.participants) await reveal1(server, done, p);
  await server.sweep();
  expect(await statusOf(server, done)).toBe("stored");
  expect(await codeOf(server.call("ceremony.join", { join: joinOf(done, done.one(1)) }))).toBe("ok");
}, 120_000);
