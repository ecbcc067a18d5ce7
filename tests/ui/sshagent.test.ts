import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import fc from "fast-check";
import { confirmer, NO_CONFIRM } from "../../src/client/agentconfirm.ts";
import { AGENT_LIMITS } from "../../src/client/agentconnection.ts";
import type { SecretInfo } from "../../src/client/api.ts";
import { concat } from "../../src/crypto/bytes.ts";
import { spkiOf } from "../../src/crypto/identity.ts";
import { signMessage } from "../../src/crypto/signature.ts";
import { Fault } from "../../src/errors.ts";
import { sshString, sshUint32 } from "../../src/formats/sshwire.ts";
import type { KeyId } from "../../src/ids.ts";
import { publicKeyOf } from "../../src/protocol/keygen.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { chosen, sshKeys } from "../../src/ui/sshagent/keys.ts";
import { readSshRequest, SSH_MESSAGE_BYTES, sshIdentities, sshScheme } from "../../src/ui/sshagent/protocol.ts";
import { type RunningSshAgent, serveSsh } from "../../src/ui/sshagent/serve.ts";

const text = (value: string) => new TextEncoder().encode(value);

function info(
  name: string,
  type: SecretType,
  publicKey: Uint8Array | null,
  more: Partial<SecretInfo> = {},
): SecretInfo {
  return {
    name,
    keyId: "ab".repeat(16) as KeyId,
    type,
    version: 1,
    tags: [],
    createdAt: "2026-01-01T00:00:00Z",
    updatedAt: "2026-01-01T00:00:00Z",
    where: "local",
    origin: "generated",
    publicKey,
    expiresAt: null,
    user: null,
    urls: [],
    ...more,
  };
}

describe("which keys are offered", () => {
  const now = Date.parse("2026-06-01T00:00:00Z");
  const key = new Uint8Array(32);
  const none = { names: [], tags: [] };

  test("by default those of type ssh, and others with the tag ssh", () => {
    expect(chosen(info("a", "ssh", key), none, now)).toBe(true);
    for (const type of ["ed25519", "p256", "p384", "rsa"] as const) {
      expect([type, chosen(info("a", type, key), none, now)]).toEqual([type, false]);
      expect([type, chosen(info("a", type, key, { tags: ["ssh"] }), none, now)]).toEqual([type, true]);
    }
    for (const type of ["secp256k1", "x25519", "login"] as const) {
      expect(chosen(info("a", type, key, { tags: ["ssh"] }), none, now)).toBe(false);
    }
  });

  test("names and tags take the place of the default", () => {
    const choice = { names: ["a"], tags: ["work"] };
    expect(chosen(info("a", "ed25519", key), choice, now)).toBe(true);
    expect(chosen(info("b", "rsa", key, { tags: ["x", "work"] }), choice, now)).toBe(true);
    expect(chosen(info("b", "ssh", key), choice, now)).toBe(false);
    expect(chosen(info("ab", "ssh", key), choice, now)).toBe(false);
  });

  test("an expired key is not offered", () => {
    expect(chosen(info("a", "ssh", key, { expiresAt: "2026-05-31T00:00:00Z" }), none, now)).toBe(false);
    expect(chosen(info("a", "ssh", key, { expiresAt: "2026-06-02T00:00:00Z" }), none, now)).toBe(true);
  });
});

describe("messages", () => {
  test("whatever comes is one of the four kinds", () => {
    const some = fc.uint8Array({ maxLength: 60 });
    const start = fc.constantFrom(11, 13, 27, 17, 0);
    const lead = fc.constantFrom(new Uint8Array(0), sshString(text("session-bind@openssh.com")), sshString(text("x")));
    fc.assert(
      fc.property(start, lead, fc.array(some, { maxLength: 4 }), some, (type, first, strings, rest) => {
        const parts = strings.map((one) => sshString(one));
        const { kind } = readSshRequest(concat(Uint8Array.of(type), first, ...parts, rest));
        expect(["bind", "list", "other", "sign"]).toContain(kind);
      }),
      { numRuns: 2_000 },
    );
    const empty = sshString(new Uint8Array(0));
    const bound = concat(sshString(text("session-bind@openssh.com")), empty, empty, empty, Uint8Array.of(1));
    expect(
      [
        Uint8Array.of(11),
        concat(Uint8Array.of(13), empty, empty, sshUint32(0)),
        concat(Uint8Array.of(27), bound),
        Uint8Array.of(0),
        new Uint8Array(0),
      ].map((message) => readSshRequest(message).kind),
    ).toEqual(["list", "sign", "bind", "other", "other"]);
  });

  test("RSA with SHA-1 is not made; with both flags the stronger hash", () => {
    expect([0, 2, 4, 6].map((flags) => sshScheme("rsa", flags))).toEqual([
      null,
      "rsa-pkcs1-sha256",
      "rsa-pkcs1-sha512",
      "rsa-pkcs1-sha512",
    ]);
  });

  test("more keys than a message holds: those that fit", () => {
    const keys = Array.from({ length: 2_000 }, (_, i) => ({ blob: new Uint8Array(300).fill(i), comment: `key ${i}` }));
    const answer = sshIdentities(keys);
    expect(answer.length).toBeLessThanOrEqual(4 + SSH_MESSAGE_BYTES);
    expect(new DataView(answer.buffer, answer.byteOffset).getUint32(5)).toBeGreaterThan(500);
  });
});

describe("the agent of ssh", () => {
  const seed = new Uint8Array(32).fill(7);
  const publicKey = publicKeyOf("ed25519", seed) ?? new Uint8Array(0);
  const blob = concat(sshString(text("ssh-ed25519")), sshString(publicKey));
  let dir: string;
  let agent: RunningSshAgent;
  let locked = false;
  /** The public half that the vault says it signed with. */
  let signedWith = publicKey;
  let refuseForwarded = false;
  const notices: string[] = [];
  const client: Parameters<typeof sshKeys>[0] = {
    list: async () => {
      if (locked) throw new Fault("locked", "the vault is locked");
      return {
        items: [info("me", "ed25519", publicKey, { tags: ["ssh"] })],
        requestId: null,
        from: "vault",
        syncedAt: null,
      };
    },
    sign: async ({ message }) => {
      if (locked) throw new Fault("locked", "the vault is locked");
      return { signature: signMessage("ed25519", seed, message), scheme: "ed25519", publicKey: signedWith };
    },
  };

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "keyhold-ssh-"));
    const keys = sshKeys(client, { names: [], tags: [] });
    agent = await serveSsh({
      socket: join(dir, "run", "agent.sock"),
      keys,
      confirmed: confirmer(NO_CONFIRM, keys.list),
      get refuseForwarded() {
        return refuseForwarded;
      },
      notice: (line) => void notices.push(line),
    });
  });
  afterAll(async () => {
    await agent.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** A client that sends what it likes. */
  async function dial() {
    let received = Buffer.alloc(0);
    let wake = Promise.withResolvers<void>();
    let closed = false;
    const socket: Socket = await Bun.connect({
      unix: agent.path,
      socket: {
        data: (_, chunk) => {
          received = Buffer.concat([received, chunk]);
          wake.resolve();
        },
        close: () => {
          closed = true;
          wake.resolve();
        },
      },
    });
    return {
      send: (...parts: readonly Uint8Array[]) => socket.write(concat(...parts)),
      end: () => socket.terminate(),
      /** The next message, or null when the agent hung up. */
      async answer(): Promise<Uint8Array | null> {
        for (;;) {
          const length = received.length < 4 ? Number.POSITIVE_INFINITY : received.readUInt32BE(0);
          if (received.length >= 4 + length) {
            const message = new Uint8Array(received.subarray(4, 4 + length));
            received = received.subarray(4 + length);
            return message;
          }
          if (closed) return null;
          await wake.promise;
          wake = Promise.withResolvers();
        }
      },
    };
  }

  const LIST = sshString(Uint8Array.of(11));
  const signing = (key: Uint8Array, data: Uint8Array, flags = 0) =>
    sshString(Uint8Array.of(13), sshString(key), sshString(data), sshUint32(flags));
  const bind = (forwarding: number) => {
    const three = ["host key", "session", "signature"].map((one) => sshString(text(one)));
    return sshString(
      Uint8Array.of(27),
      sshString(text("session-bind@openssh.com")),
      ...three,
      Uint8Array.of(forwarding),
    );
  };
  async function ask(...parts: readonly Uint8Array[]): Promise<Uint8Array | null> {
    const one = await dial();
    one.send(...parts);
    const answer = await one.answer();
    one.end();
    return answer;
  }
  const FAILED = Uint8Array.of(5);

  test("lists, and signs what is asked for", async () => {
    const answer = await ask(LIST);
    expect(answer).toEqual(concat(Uint8Array.of(12), sshUint32(1), sshString(blob), sshString(text("me"))));
    const signed = await ask(signing(blob, text("challenge")));
    expect(signed?.subarray(0, 5)).toEqual(concat(Uint8Array.of(14), sshUint32(83)));
    const key = createPublicKey({ key: Buffer.from(spkiOf(publicKey)), format: "der", type: "spki" });
    expect(verify(null, text("challenge"), key, signed?.subarray(-64) ?? new Uint8Array(0))).toBe(true);
  });

  test("refuses other keys, other requests and trailing bytes", async () => {
    expect(await ask(signing(concat(blob, Uint8Array.of(0)), text("x")))).toEqual(FAILED);
    // add, remove, remove all, smartcard, lock, unlock, constrained, an old one, nonsense
    for (const type of [17, 18, 19, 20, 22, 23, 25, 1, 200]) {
      expect([type, await ask(sshString(Uint8Array.of(type), sshString(blob)))]).toEqual([type, FAILED]);
    }
    expect(await ask(sshString(Uint8Array.of(11, 0)))).toEqual(FAILED);
    expect(await ask(sshString(Uint8Array.of(27), sshString(text("query"))))).toEqual(FAILED);
    expect(
      await ask(sshString(Uint8Array.of(13), sshString(blob), sshString(text("x")), sshUint32(0), FAILED)),
    ).toEqual(FAILED);
  });

  test("a signature by another key than was asked for does not leave it", async () => {
    signedWith = publicKeyOf("ed25519", new Uint8Array(32).fill(8)) ?? publicKey;
    try {
      expect(await ask(signing(blob, text("x")))).toEqual(FAILED);
      expect(notices.at(-1)).toContain("another key");
    } finally {
      signedWith = publicKey;
    }
    expect((await ask(signing(blob, text("x"))))?.[0]).toBe(14);
  });

  test("locked: no keys, no signatures, and both again afterwards", async () => {
    expect((await ask(LIST))?.length).toBeGreaterThan(5);
    locked = true;
    try {
      expect(await ask(LIST)).toEqual(Uint8Array.of(12, 0, 0, 0, 0));
      expect(await ask(signing(blob, text("x")))).toEqual(FAILED);
    } finally {
      locked = false;
    }
    expect((await ask(signing(blob, text("x"))))?.[0]).toBe(14);
  });

  test("a connection that is forwarded signs, unless that is refused; others go on", async () => {
    for (const [refuse, forwarding, first] of [
      [false, 1, 14],
      [true, 1, 5],
      [true, 0, 14],
    ] as const) {
      refuseForwarded = refuse;
      const one = await dial();
      one.send(bind(forwarding));
      expect(await one.answer()).toEqual(Uint8Array.of(6));
      // a later one cannot take it back
      one.send(bind(0));
      expect(await one.answer()).toEqual(Uint8Array.of(6));
      one.send(signing(blob, text("x")));
      expect((await one.answer())?.[0]).toBe(first);
      one.end();
    }
    refuseForwarded = false;
  });

  test("in pieces of one byte, and several at once in their order", async () => {
    const one = await dial();
    for (const byte of concat(LIST, signing(blob, text("x")))) {
      one.send(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect([(await one.answer())?.[0], (await one.answer())?.[0]]).toEqual([12, 14]);
    one.send(LIST, signing(blob, text("x")), sshString(Uint8Array.of(19)), LIST);
    const types: (number | undefined)[] = [];
    for (let i = 0; i < 4; i++) types.push((await one.answer())?.[0]);
    expect(types).toEqual([12, 14, 5, 12]);
    one.end();
  });

  test("what is no message ends its connection, and no other", async () => {
    const honest = await dial();
    honest.send(LIST.subarray(0, 3));
    for (const length of [0, SSH_MESSAGE_BYTES + 1, 0xffff_ffff]) {
      expect(await ask(sshUint32(length), new Uint8Array(64))).toBeNull();
    }
    // more at once than ssh ever asks
    const flood = await dial();
    flood.send(...Array.from({ length: 64 }, () => signing(blob, text("x"))));
    const answers: (Uint8Array | null)[] = [];
    while (answers.at(-1) !== null) answers.push(await flood.answer());
    expect(answers.length).toBeLessThan(64);
    honest.send(LIST.subarray(3));
    expect((await honest.answer())?.[0]).toBe(12);
    honest.end();
  });

  test("a message of full size is taken", async () => {
    const room = SSH_MESSAGE_BYTES - 1 - 4 - blob.length - 4 - 4;
    const one = await dial();
    const whole = signing(blob, new Uint8Array(room));
    expect(whole.length).toBe(4 + SSH_MESSAGE_BYTES);
    for (let at = 0; at < whole.length; ) {
      at += Math.max(0, one.send(whole.subarray(at, at + 16_384)));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await one.answer())?.[0]).toBe(14);
    one.end();
  });

  test("hundreds of connections that say nothing do not keep it from another", async () => {
    const crowd: Awaited<ReturnType<typeof dial>>[] = [];
    for (let i = 0; i < 3 * AGENT_LIMITS.connections; i++) crowd.push(await dial());
    expect((await ask(LIST))?.[0]).toBe(12);
    for (const one of crowd) one.end();
  });

  test("a question to the owner keeps no other connection waiting", async () => {
    const asked = Promise.withResolvers<void>();
    const verdict = Promise.withResolvers<"yes">();
    const keys = sshKeys(client, { names: [], tags: [] });
    const ask = () => {
      asked.resolve();
      return verdict.promise;
    };
    const slow = await serveSsh({
      socket: join(dir, "run", "slow.sock"),
      keys,
      confirmed: confirmer({ patterns: ["me"], ask }, keys.list),
      refuseForwarded: false,
      notice: () => undefined,
    });
    const [before, path] = [agent, slow.path];
    agent = { ...agent, path };
    try {
      const [waiting, other] = [await dial(), await dial()];
      waiting.send(signing(blob, text("x")));
      await asked.promise;
      other.send(LIST);
      expect((await other.answer())?.[0]).toBe(12);
      verdict.resolve("yes");
      expect((await waiting.answer())?.[0]).toBe(14);
      waiting.end();
      other.end();
    } finally {
      agent = before;
      await slow.stop();
    }
  });
});
