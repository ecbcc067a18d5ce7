import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ATTEMPTS_MAX } from "../../../src/client/federation/drive.ts";
import { generateKey, goOnMaking } from "../../../src/client/federation/generate.ts";
import { cancel, deliverOwed } from "../../../src/client/federation/pending.ts";
import { cancelRequest, listRequests } from "../../../src/client/federation/requests.ts";
import { equalBytes } from "../../../src/crypto/bytes.ts";
import { verifySignature } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import {
  type Message,
  messageBytes,
  type Round,
  type SignedMessage,
  signMessage,
} from "../../../src/protocol/federation/message.ts";
import { encodeJson } from "../../../src/wire/codec.ts";
import { portions } from "../../../src/wire/federation/portions.ts";
import { messages as messagesCodec } from "../../../src/wire/federation/records.ts";
import { type ClientWorld, certificatesOf, clientWorld, type Meddle, WISH } from "./clientworld.ts";

setDefaultTimeout(60_000);

interface Said {
  readonly messages: readonly SignedMessage[];
}

const speaks = (name: string): boolean => name === "federation.begin" || name === "federation.relay";

/** What a server says in one round is never heard: it has died there. */
const diesAt =
  (victim: number, round: Round): Meddle =>
  async (index, _name, _input, pass) => {
    const answer = (await pass()) as Partial<Said>;
    const dead = index === victim && answer.messages?.some(({ message }) => message.payload.round === round);
    if (dead) throw new Fault("unreachable", "nobody answers");
    return answer;
  };

/** Alters what one server says, and signs it anew with that server's own key. */
function alters(world: ClientWorld, liar: number, change: (message: Message) => Message): Meddle {
  return async (index, name, _input, pass) => {
    const answer = (await pass()) as Said;
    if (index !== liar || !speaks(name)) return answer;
    const { signer } = world.at(liar);
    const messages = answer.messages.map((one) => signMessage(signer, change(one.message)));
    return { ...answer, messages };
  };
}

const caught = async (work: Promise<unknown>): Promise<Fault> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was to fail");
};

const onlyRequest = ({ disk }: ClientWorld) => {
  const [held] = disk.requests;
  if (!held) throw new Error("no request is kept");
  return held;
};

const ordersOf = ({ calls }: ClientWorld) =>
  new Set(calls.flatMap(({ name, input }) => (name === "federation.begin" ? [JSON.stringify(input)] : []))).size;

describe("absent servers", () => {
  test("one that is down is left out, and gets the certificate when it is back", async () => {
    const world = await clientWorld(5, 3);
    world.down.add(2);
    const made = await generateKey(world.ground, WISH);
    expect(made).toMatchObject({ status: "degraded", absent: [2] });
    expect([...certificatesOf(world, made.keyId ?? "").values()]).toEqual([[1, 3, 4, 5]]);
    expect(onlyRequest(world).owed).toEqual([2]);
    await deliverOwed(world.ground);
    expect(onlyRequest(world).owed).toEqual([2]);
    world.down.clear();
    await deliverOwed(world.ground);
    expect(world.disk.requests).toEqual([]);
    expect([...certificatesOf(world, made.keyId ?? "").values()]).toEqual([[1, 3, 4, 5, 2]].map((all) => all.sort()));
  });

  for (const round of ["commit", "echo", "share", "complaint", "confirm"] as const) {
    test(`one that dies at its ${round} is left out of the next attempt, which draws everything afresh`, async () => {
      const world = await clientWorld(5, 3);
      world.meddle = diesAt(4, round);
      const made = await generateKey(world.ground, WISH);
      expect(made.status).toBe(round === "confirm" ? "fulfilled" : "degraded");
      // four confirmations are enough: a server that dies with its own makes no new attempt necessary
      const late = round === "confirm";
      expect(ordersOf(world)).toBe(late ? 1 : 2);
      expect([...certificatesOf(world, made.keyId ?? "").values()]).toEqual([[1, 2, 3, 4, 5]]);
      expect(world.disk.keys[0]?.certificate.certificate.holders).toEqual(late ? [1, 2, 3, 4, 5] : [1, 2, 3, 5]);
      expect(world.notices).toEqual([]);
    });
  }

  test("too few servers are no quorum; the request stays, and goes on when they are back", async () => {
    const world = await clientWorld(3, 2);
    world.down.add(3);
    const fault = await caught(generateKey(world.ground, WISH));
    expect(fault).toMatchObject({ code: "unavailable", requestId: onlyRequest(world).requestId });
    expect(ordersOf(world)).toBe(0);
    world.down.clear();
    expect(await goOnMaking(world.ground, onlyRequest(world))).toMatchObject({ status: "fulfilled" });
  });

  test("a request has so many attempts and no more", async () => {
    const world = await clientWorld(3, 2);
    world.meddle = diesAt(1, "echo");
    const fault = await caught(generateKey(world.ground, WISH));
    expect(fault.code).toBe("unavailable");
    expect(onlyRequest(world).orders.map(({ order }) => order.attempt)).toEqual(
      Array.from({ length: ATTEMPTS_MAX }, (_, i) => i + 1),
    );
  });
});

describe("servers that lie", () => {
  test("two first messages: the liar is named with the proof, and left out", async () => {
    const world = await clientWorld(5, 3);
    let turn = 0;
    world.meddle = alters(world, 5, (message) => {
      turn += 1;
      if (message.payload.round !== "commit") return message;
      return {
        ...message,
        payload: { ...message.payload, sealing: turn % 2 ? message.payload.sealing : world.at(1).signer.publicKey },
      };
    });
    const made = await generateKey(world.ground, WISH);
    expect(made).toMatchObject({ status: "degraded" });
    expect(world.disk.keys[0]?.certificate.certificate.holders).toEqual([1, 2, 3, 4]);
    expect(world.notices.join()).toContain("https://s5.test was proven to cheat (equivocation)");
  });

  test("a wrong proof of the constant: named by the others, and their evidence verified here", async () => {
    const world = await clientWorld(5, 3);
    world.meddle = alters(world, 2, (message) =>
      message.payload.round === "commit"
        ? { ...message, payload: { ...message.payload, proof: message.payload.proof.toReversed() } }
        : message,
    );
    expect((await generateKey(world.ground, WISH)).status).toBe("degraded");
    expect(world.notices.join()).toContain("https://s2.test was proven to cheat (bad_proof)");
    expect(world.disk.keys[0]?.certificate.certificate.holders).toEqual([1, 3, 4, 5]);
  });

  test("an accusation without a proof names nobody, and costs the accuser its place", async () => {
    const world = await clientWorld(5, 3);
    world.meddle = async (index, name, _input, pass) => {
      const answer = await pass();
      if (index !== 3 || !speaks(name)) return answer;
      const [evidence] = (answer as Said).messages;
      const culprits = [{ index: 1, reason: "bad_share", evidence: [evidence] }];
      return { ...(answer as Said), outcome: { result: "failed", certificate: null, signature: null, culprits } };
    };
    expect((await generateKey(world.ground, WISH)).status).toBe("degraded");
    expect(world.notices).toEqual([]);
    expect(world.disk.keys[0]?.certificate.certificate.holders).toEqual([1, 2, 4, 5]);
  });

  test("when the honest ones are too few, the request fails and names who it was", async () => {
    const world = await clientWorld(3, 2);
    world.meddle = alters(world, 2, (message) =>
      message.payload.round === "commit"
        ? { ...message, payload: { ...message.payload, proof: new Uint8Array(64) } }
        : message,
    );
    expect(await caught(generateKey(world.ground, WISH))).toMatchObject({
      code: "integrity",
      culprits: ["https://s2.test"],
    });
    expect(world.disk.keys).toEqual([]);
    expect(world.servers.every(({ keys }) => keys.size === 0)).toBe(true);
  });

  test("a server that invents messages of others is not believed", async () => {
    const world = await clientWorld(5, 3);
    world.meddle = async (index, name, _input, pass) => {
      const answer = (await pass()) as Said;
      if (index !== 1 || !speaks(name)) return answer;
      const forged = answer.messages.map(({ message }) => signMessage(world.at(1).signer, { ...message, from: 2 }));
      return { ...answer, messages: [...answer.messages, ...forged] };
    };
    expect((await generateKey(world.ground, WISH)).status).toBe("fulfilled");
    expect(world.notices).toEqual([]);
    const forged = world.calls.filter(({ name, input }) => {
      return (
        name === "federation.relay" &&
        (input as Said).messages.some(
          ({ message, signature }) =>
            !verifySignature(world.at(message.from).signer.publicKey, messageBytes(message), signature),
        )
      );
    });
    expect(forged).toEqual([]);
  });

  test("one that tells of attempts that nobody has ordered does not use them up", async () => {
    for (const attempt of [ATTEMPTS_MAX - 1, 1_000]) {
      const world = await clientWorld(3, 2);
      world.meddle = async (index, name, _input, pass) => {
        const answer = (await pass()) as object;
        return index === 2 && name === "federation.submit" ? { ...answer, attempt } : answer;
      };
      expect(await generateKey(world.ground, WISH)).toMatchObject({ status: "fulfilled" });
      expect(world.disk.keys[0]?.certificate.certificate.attempt).toBe(1);
    }
  });

  test("whatever code a failure has, it is one server's", async () => {
    const world = await clientWorld(5, 3);
    const codes = ["internal", "interrupted", "locked", "integrity", "denied"] as const;
    for (const code of codes) {
      world.meddle = async (index, _name, _input, pass) => {
        if (index === 1) throw new Fault(code, "broken");
        return pass();
      };
      expect((await generateKey(world.ground, { ...WISH, name: code })).status).toBe("degraded");
    }
  });
});

test("a request whose key is in the vault is fulfilled, whoever is away", async () => {
  const world = await clientWorld(3, 2);
  expect((await generateKey(world.ground, WISH)).status).toBe("fulfilled");
  world.meddle = async (index, _name, _input, pass) => {
    if (index > 1) throw new Fault("unreachable", "nobody answers");
    return pass();
  };
  expect((await listRequests(world.ground)).map(({ status }) => status)).toEqual(["fulfilled"]);
});

describe("approval", () => {
  test("too many refusals are told with each server's reason", async () => {
    const world = await clientWorld(3, 2);
    world.at(1).ruling = "deny";
    const fault = await caught(generateKey(world.ground, WISH));
    expect(fault).toMatchObject({ code: "denied" });
    expect(fault.why).toContain("https://s1.test: rejected: its policy denies it");
    expect(ordersOf(world)).toBe(0);
  });

  test("a request that waits is told as such, and goes on once it is approved", async () => {
    const world = await clientWorld(3, 2);
    for (const server of world.servers) server.ruling = "wait";
    expect(await generateKey(world.ground, WISH)).toMatchObject({ status: "awaiting_approval", keyId: null });
    expect(await goOnMaking(world.ground, onlyRequest(world))).toMatchObject({ status: "awaiting_approval" });
    const [info] = await listRequests(world.ground);
    expect(info).toMatchObject({ status: "awaiting_approval", kind: "generate", name: "key" });
    expect(info?.words).toHaveLength(6);
    for (const server of world.servers) server.ruling = "allow";
    expect(await goOnMaking(world.ground, onlyRequest(world))).toMatchObject({ status: "fulfilled" });
  });

  test("those who approve do not wait for the others where they are enough", async () => {
    const world = await clientWorld(5, 3);
    world.at(5).ruling = "wait";
    expect((await generateKey(world.ground, WISH)).status).toBe("degraded");
    expect(world.disk.keys[0]?.certificate.certificate.holders).toEqual([1, 2, 3, 4]);
  });
});

describe("one decision", () => {
  class Crash extends Error {}

  const decisions = ({ calls }: ClientWorld) =>
    new Set(
      calls.flatMap(({ name, input }) =>
        name === "federation.decide" ? [JSON.stringify((input as { decision: unknown }).decision)] : [],
      ),
    );

  /** Runs until the nth effect, which kills the client; what is on disk stays. */
  async function crashAt(world: ClientWorld, nth: number): Promise<boolean> {
    let effects = 0;
    let dead = false;
    const { meddle, onSave } = world;
    const strike = () => {
      effects += 1;
      if (effects >= nth) dead = true;
      if (dead) throw new Crash();
    };
    world.onSave = strike;
    world.meddle = async (...args) => {
      strike();
      const answer = await meddle(...args);
      if (dead) throw new Crash();
      return answer;
    };
    try {
      await generateKey(world.ground, WISH);
      return false;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      return true;
    } finally {
      world.meddle = meddle;
      world.onSave = onSave;
    }
  }

  test("a crash at any effect: what was decided stands, and there is one key or none", async () => {
    let [crashes, done] = [0, 0];
    for (let nth = 1; nth < 80; nth += 2) {
      const world = await clientWorld(3, 2, nth);
      const crashed = await crashAt(world, nth);
      if (crashed) crashes += 1;
      const [held] = world.disk.requests;
      if (held) {
        if (nth % 4 === 1) world.at(2).restart();
        expect((await goOnMaking(world.ground, held)).status).toBe("fulfilled");
        done += 1;
      }
      expect(decisions(world).size).toBeLessThanOrEqual(1);
      const [key, ...more] = world.disk.keys;
      expect(more).toEqual([]);
      if (key) expect([...certificatesOf(world, key.keyId).values()]).toEqual([[1, 2, 3]]);
      expect(world.servers.some(({ keys }) => [...keys.values()].some(({ frozen }) => frozen))).toBe(false);
      if (!crashed) break;
    }
    expect(crashes).toBeGreaterThan(10);
    expect(done).toBeGreaterThan(10);
  });

  test("the decision is on disk before anybody hears of it", async () => {
    const world = await clientWorld(3, 2);
    const said: string[] = [];
    world.onSave = (what) => said.push(`save ${what}`);
    world.meddle = (_index, name, _input, pass) => {
      if (name === "federation.decide") said.push(name);
      return pass();
    };
    await generateKey(world.ground, WISH);
    expect(said.indexOf("save decision")).toBeGreaterThan(-1);
    expect(said.indexOf("save decision")).toBeLessThan(said.indexOf("save key"));
    expect(said.indexOf("save key")).toBeLessThan(said.indexOf("federation.decide"));
  });

  test("what is cancelled is never accepted, and what is accepted never cancelled", async () => {
    const world = await clientWorld(3, 2);
    for (const server of world.servers) server.ruling = "wait";
    await generateKey(world.ground, WISH);
    const held = onlyRequest(world);
    world.down.add(1);
    expect(await cancelRequest(world.ground, held.requestId)).toMatchObject({ status: "cancelled" });
    for (const server of world.servers) server.ruling = "allow";
    world.down.clear();
    expect(await caught(goOnMaking(world.ground, onlyRequest(world)))).toMatchObject({ code: "conflict" });
    await deliverOwed(world.ground);
    expect(world.disk.requests).toEqual([]);
    expect(decisions(world).size).toBe(1);
    expect(world.servers.every(({ keys }) => keys.size === 0)).toBe(true);

    let owed: ReturnType<typeof onlyRequest> | null = null;
    world.meddle = (index, name, _input, pass) => {
      if (name !== "federation.decide" || index !== 1) return pass();
      owed = onlyRequest(world);
      throw new Fault("unreachable", "nobody answers");
    };
    expect((await generateKey(world.ground, WISH)).status).toBe("degraded");
    if (owed === null) throw new Error("nobody was told");
    expect(await caught(cancel(world.ground, owed))).toMatchObject({ code: "conflict" });
  });

  test("another certificate than the one that was accepted is never accepted, whoever drives", async () => {
    const world = await clientWorld(3, 2);
    const orders = new Set<string>();
    world.meddle = (_index, name, input, pass) => {
      if (name === "federation.begin") orders.add(JSON.stringify(input));
      return pass();
    };
    for (const server of world.servers) server.ruling = "wait";
    await generateKey(world.ground, WISH);
    for (const server of world.servers) server.ruling = "allow";
    const held = onlyRequest(world);
    const both = await Promise.allSettled([goOnMaking(world.ground, held), goOnMaking(world.ground, held)]);
    expect(both.some(({ status }) => status === "fulfilled")).toBe(true);
    for (const one of both) if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "conflict" });
    expect(decisions(world).size).toBe(1);
    expect(world.disk.keys).toHaveLength(1);
  });
});

test("messages are split so that each call fits a frame, and none is lost", async () => {
  const world = await clientWorld(3, 2);
  const said: SignedMessage[] = [];
  world.meddle = async (_index, name, _input, pass) => {
    const answer = await pass();
    if (speaks(name)) said.push(...(answer as Said).messages);
    return answer;
  };
  await generateKey(world.ground, WISH);
  const many = Array.from({ length: 40 }, () => said).flat();
  const parts = portions(many);
  expect(parts.flat()).toEqual(many);
  expect(parts.length).toBeGreaterThan(1);
  for (const part of parts) {
    expect(part.length).toBeLessThanOrEqual(128);
    expect(encodeJson(messagesCodec, part).length).toBeLessThan(100 * 1_024);
  }
});

test("no message goes to a server that it is not for", async () => {
  const world = await clientWorld(3, 2);
  await generateKey(world.ground, WISH);
  for (const { index, name, input } of world.calls) {
    if (name !== "federation.relay") continue;
    for (const { message } of (input as Said).messages) {
      expect(message.from).not.toBe(index);
      expect([0, index]).toContain(message.to);
    }
  }
  const all = world.disk.keys[0]?.certificate.certificate.transcript;
  expect(all && equalBytes(all, new Uint8Array(32))).toBe(false);
});
