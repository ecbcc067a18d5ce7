import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { generateKey } from "../../../src/client/federation/generate.ts";
import type { HeldKey } from "../../../src/client/federation/held.ts";
import { deliverOwed } from "../../../src/client/federation/pending.ts";
import { reshareKey } from "../../../src/client/federation/reshare.ts";
import { goOnUsing, releaseKey, signWithKey } from "../../../src/client/federation/use.ts";
import { Fault } from "../../../src/errors.ts";
import { type Message, type SignedMessage, signMessage } from "../../../src/protocol/federation/message.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { type ClientWorld, clientWorld, type Meddle, WISH } from "./clientworld.ts";

setDefaultTimeout(60_000);

interface Said {
  readonly messages: readonly SignedMessage[];
}

const MESSAGE = new TextEncoder().encode("a message");

const onlyKey = ({ disk }: ClientWorld): HeldKey => {
  const [key] = disk.keys;
  if (!key) throw new Error("no key");
  return key;
};

const caught = async (work: Promise<unknown>): Promise<Fault> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was to fail");
};

async function withKey(n: number, t: number, wish: Partial<typeof WISH | { custody: "self" | "delegated" }> = {}) {
  const world = await clientWorld(n, t);
  await generateKey(world.ground, { ...WISH, ...wish });
  world.calls.length = 0;
  return world;
}

async function signs(world: ClientWorld): Promise<boolean> {
  const { signatureHex } = await signWithKey(world.ground, onlyKey(world), MESSAGE, null);
  return signatureHolds(onlyKey(world).certificate.certificate, MESSAGE, Uint8Array.fromHex(signatureHex ?? ""));
}

const rostersOf = ({ calls }: ClientWorld) => [
  ...new Set(
    calls.flatMap(({ name, input }) =>
      name === "federation.begin"
        ? [(input as { order: { order: { roster: readonly number[] } } }).order.order.roster.join()]
        : [],
    ),
  ),
];

function alters(world: ClientWorld, liar: number, change: (message: Message) => Message): Meddle {
  return async (index, name, _input, pass) => {
    const answer = (await pass()) as Said;
    if (index !== liar || (name !== "federation.begin" && name !== "federation.relay")) return answer;
    return { ...answer, messages: answer.messages.map((m) => signMessage(world.at(liar).signer, change(m.message))) };
  };
}

describe("signing", () => {
  test("exactly as many servers as it takes are asked to sign", async () => {
    const world = await withKey(5, 3);
    expect(await signs(world)).toBe(true);
    expect(rostersOf(world)).toEqual(["1,2,3"]);
  });

  test("one that falls silent in the middle is replaced, with fresh nonces; self-custodial keys too", async () => {
    for (const custody of ["delegated", "self"] as const) {
      const world = await withKey(5, 3, { custody });
      const nonces = new Set<string>();
      let count = 0;
      world.meddle = async (index, name, _input, pass) => {
        if (index === 2 && name === "federation.relay") throw new Fault("timed_out", "no answer");
        const answer = (await pass()) as Said;
        for (const { message } of answer.messages ?? []) {
          if (message.payload.round !== "nonces" || name !== "federation.begin") continue;
          count += 1;
          nonces.add(message.payload.hiding.toHex());
        }
        return answer;
      };
      expect(await signs(world)).toBe(true);
      expect(rostersOf(world)).toEqual(["1,2,3", "1,3,4"]);
      expect(nonces.size).toBe(count);
      expect(count).toBe(6);
      const orders = world.calls.flatMap(({ name, input }) =>
        name === "federation.begin" ? [JSON.stringify(input)] : [],
      );
      expect(orders[0]?.includes('"ownerNonces":null')).toBe(custody === "delegated");
    }
  });

  test("one that gives a wrong partial is named, and the others sign", async () => {
    const world = await withKey(5, 3);
    world.meddle = alters(world, 1, (message) =>
      message.payload.round === "partial"
        ? { ...message, payload: { round: "partial", sealed: message.payload.sealed.toReversed() } }
        : message,
    );
    expect(await signs(world)).toBe(true);
    expect(world.notices.join()).toContain("https://s1.test was proven to cheat (bad_partial)");
    expect(rostersOf(world)).toEqual(["1,2,3", "2,3,4"]);
  });

  test("one that gives points that are none is named by the others, and by its own message", async () => {
    const world = await withKey(5, 3);
    world.meddle = alters(world, 3, (message) =>
      message.payload.round === "nonces"
        ? { ...message, payload: { ...message.payload, hiding: new Uint8Array(32).fill(0xff) } }
        : message,
    );
    expect(await signs(world)).toBe(true);
    expect(world.notices.join()).toContain("https://s3.test was proven to cheat (bad_commitments)");
  });

  test("one that says other nonces to a client that was killed convicts nobody but itself", async () => {
    const world = await withKey(5, 3);
    let killed = false;
    world.meddle = async (index, name, _input, pass) => {
      const answer = (await pass()) as Said;
      if (name === "federation.relay" && !killed) throw new Error("killed");
      if (index !== 1 || (name !== "federation.begin" && name !== "federation.relay")) return answer;
      const messages = answer.messages.map((one) => {
        const { payload } = one.message;
        if (payload.round !== "nonces" || !killed) return one;
        return signMessage(world.at(1).signer, { ...one.message, payload: { ...payload, hiding: payload.binding } });
      });
      return { ...answer, messages };
    };
    expect(signWithKey(world.ground, onlyKey(world), MESSAGE, null)).rejects.toThrow("killed");
    await Bun.sleep(50);
    killed = true;
    const [held] = world.disk.requests;
    if (!held) throw new Error("nothing is kept");
    expect((await goOnUsing(world.ground, held)).status).toBe("fulfilled");
    expect(world.notices).toEqual(["https://s1.test was proven to cheat (bad_partial): it is left out"]);
    expect(rostersOf(world)).toEqual(["1,2,3", "2,3,4"]);
  });

  test("one that says two nonces is named by the proof of another", async () => {
    const world = await withKey(5, 3);
    world.meddle = async (index, name, _input, pass) => {
      const answer = (await pass()) as Said;
      if (index !== 2 || name !== "federation.relay") return answer;
      const said = world.calls.flatMap(({ index: to, input }) =>
        to === 2 && input !== null && typeof input === "object" && "messages" in input
          ? (input.messages as readonly SignedMessage[])
          : [],
      );
      const nonces = said.find(({ message }) => message.from === 1);
      if (nonces?.message.payload.round !== "nonces") return answer;
      const { payload } = nonces.message;
      const other = signMessage(world.at(1).signer, {
        ...nonces.message,
        payload: { ...payload, hiding: payload.binding },
      });
      const culprits = [{ index: 1, reason: "equivocation", evidence: [nonces, other] }];
      return {
        messages: answer.messages.slice(0, 1),
        outcome: { result: "failed", certificate: null, signature: null, culprits },
      };
    };
    await signWithKey(world.ground, onlyKey(world), MESSAGE, null).catch(() => undefined);
    expect(world.notices[0]).toBe("https://s1.test was proven to cheat (equivocation): it is left out");
  });

  test("a client that was killed before the partials came finishes with the seed that it kept", async () => {
    const world = await withKey(3, 2);
    world.meddle = (_index, name, _input, pass) => {
      if (name === "federation.relay") throw new Error("killed");
      return pass();
    };
    expect(signWithKey(world.ground, onlyKey(world), MESSAGE, null)).rejects.toThrow("killed");
    await Bun.sleep(50);
    world.meddle = (_index, _name, _input, pass) => pass();
    const [held] = world.disk.requests;
    if (!held) throw new Error("nothing is kept");
    const done = await goOnUsing(world.ground, held);
    expect(done.status).toBe("fulfilled");
    expect(world.disk.requests).toEqual([]);
  });

  test("a denied use is denied, and marks nothing as released", async () => {
    const world = await withKey(3, 2, { type: "p256" } as never);
    for (const server of world.servers) server.ruling = "deny";
    expect(await caught(signWithKey(world.ground, onlyKey(world), MESSAGE, null))).toMatchObject({ code: "denied" });
    expect(onlyKey(world).released).toBe(false);
  });

  test("a use that has no attempts left is forgotten, and asking again is another use", async () => {
    const world = await withKey(3, 2);
    world.meddle = (_index, name, _input, pass) => {
      if (name === "federation.relay") throw new Fault("timed_out", "no answer");
      return pass();
    };
    expect(await caught(signWithKey(world.ground, onlyKey(world), MESSAGE, null))).toMatchObject({
      code: "unavailable",
    });
    expect(world.disk.requests).toEqual([]);
    world.meddle = (_index, _name, _input, pass) => pass();
    expect(await signs(world)).toBe(true);
  });

  test("an export gives the key, which says so for good", async () => {
    const world = await withKey(3, 2, { type: "secp256k1" } as never);
    const got = await releaseKey(world.ground, onlyKey(world), "export");
    expect(got.value).toHaveLength(32);
    expect(onlyKey(world).released).toBe(true);
    expect(await caught(releaseKey(world.ground, onlyKey(world), "retrieve"))).toMatchObject({ code: "bad_input" });
  });
});

describe("sharing anew", () => {
  test("a server that was absent is brought in, and signs", async () => {
    const world = await clientWorld(5, 3);
    world.down.add(1);
    await generateKey(world.ground, WISH);
    world.down.clear();
    await deliverOwed(world.ground);
    const publicKey = onlyKey(world).certificate.certificate.publicKey;
    const repaired = await reshareKey(world.ground, onlyKey(world), { mode: "repair", threshold: null, holders: null });
    expect(repaired).toMatchObject({ status: "fulfilled", absent: [] });
    expect(onlyKey(world).certificate.certificate).toMatchObject({
      generation: 1,
      holders: [1, 2, 3, 4, 5],
      publicKey,
    });
    world.down.add(4).add(5);
    expect(await signs(world)).toBe(true);
  });

  test("a server that lost everything is refilled, the lowest index too", async () => {
    for (const lost of [1, 3]) {
      const world = await withKey(3, 2);
      world.at(lost).lose();
      const repair = { mode: "repair", threshold: null, holders: null } as const;
      expect(await reshareKey(world.ground, onlyKey(world), repair)).toMatchObject({ status: "fulfilled" });
      world.down.add(2);
      expect(await signs(world)).toBe(true);
    }
  });

  test("nothing to repair is said, and too few live shares are no key", async () => {
    const world = await withKey(3, 2);
    const repair = { mode: "repair", threshold: null, holders: null } as const;
    expect(await caught(reshareKey(world.ground, onlyKey(world), repair))).toMatchObject({ code: "conflict" });
    world.at(1).lose();
    world.at(2).lose();
    expect(await caught(reshareKey(world.ground, onlyKey(world), repair))).toMatchObject({ code: "unavailable" });
  });

  test("after a refresh the old shares serve nobody, and the new ones all", async () => {
    const world = await withKey(3, 2);
    const old = onlyKey(world);
    const done = await reshareKey(world.ground, old, { mode: "refresh", threshold: null, holders: null });
    expect(done.status).toBe("fulfilled");
    expect(onlyKey(world).certificate.certificate.generation).toBe(1);
    expect(await signs(world)).toBe(true);
    // a device that knows the old generation alone learns the new one from the servers, and signs with it
    world.disk.keys = [old];
    expect(await signs(world)).toBe(true);
    expect(onlyKey(world).certificate.certificate.generation).toBe(1);
    expect(world.disk.requests).toEqual([]);
  });

  test("2 of 3 becomes 3 of 5 and back, and the key stays", async () => {
    const world = await clientWorld(5, 3);
    await generateKey(world.ground, WISH);
    const publicKey = onlyKey(world).certificate.certificate.publicKey;
    const to = (threshold: number, holders: readonly number[]) =>
      reshareKey(world.ground, onlyKey(world), { mode: "reshare", threshold, holders });
    expect((await to(2, [2, 3, 5])).keyId).toBe(onlyKey(world).keyId);
    world.down.add(3);
    expect(await signs(world)).toBe(true);
    world.down.clear();
    expect((await to(3, [1, 2, 3, 4, 5])).status).toBe("fulfilled");
    world.down.add(2).add(3);
    expect(await signs(world)).toBe(true);
    expect(onlyKey(world).certificate.certificate).toMatchObject({ generation: 2, threshold: 3, publicKey });
  });

  test("a threshold of half or less, and one of more than there are, are refused", async () => {
    const world = await withKey(5, 3);
    for (const [threshold, holders] of [
      [2, [1, 2, 3, 4]],
      [4, [1, 2, 3]],
      [1, [1]],
    ] as const) {
      const fault = await caught(reshareKey(world.ground, onlyKey(world), { mode: "reshare", threshold, holders }));
      expect(fault.code).toBe("bad_input");
    }
    for (const holders of [
      [0, 1, 2],
      [1, 2, 9],
    ]) {
      const fault = await caught(reshareKey(world.ground, onlyKey(world), { mode: "reshare", threshold: 2, holders }));
      expect(fault.code).toBe("bad_input");
    }
  });
});
