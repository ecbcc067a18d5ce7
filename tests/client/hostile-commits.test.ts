import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readPending } from "../../src/client/vaultfile.ts";
import { Fault } from "../../src/errors.ts";
import type { RequestId } from "../../src/ids.ts";
import { frameHead } from "../../src/protocol/channel.ts";
import { stateHash } from "../../src/protocol/state.ts";
import type { CommitName, InputOf } from "../../src/wire/operations.ts";
import { addTestDevice, type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  babbling,
  detected,
  EVERYTHING,
  editing,
  impatient,
  inventing,
  onDisk,
  rejected,
  startVillain,
  storing,
  textOf,
  unsealed,
  type Villain,
} from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
let account: string;
let ada: TestDevice;
const devices: TestDevice[] = [];

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  devices.push(ada);
  await ada.client.store(storing("a", "first"));
  villain.seen.length = 0;
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.end();
  expect(villain.server.faults).toEqual([]);
});

const versions = async (name: string): Promise<number[]> =>
  (await ada.client.history({ name })).items.map(({ version }) => version);

/** Frames of one operation that reached the honest server. */
const sent = (operation: string) => villain.seen.filter((one) => one.operation === operation).map(({ body }) => body);

describe("acknowledgements", () => {
  test("acknowledge a commit with another state hash", async () => {
    const other = editing(villain, {
      "secret.store": (output) => ({ ...output, stateHash: new Uint8Array(32).fill(7) }),
    });
    await detected(villain, ada, other, () => ada.client.store(storing("a", "second")));
    expect(await textOf(ada.client, "a")).toBe("second");
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("acknowledge a commit while its own position contradicts it", async () => {
    const other = editing(villain, {}, (head) => ({ ...head, stateHash: new Uint8Array(32).fill(7) }));
    await detected(villain, ada, other, () => ada.client.store(storing("a", "second")));
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("acknowledge with another hash without executing: nothing of it stays in the model", async () => {
    const root = ada.open.box.model.map.root().toHex();
    const lie = inventing(villain, "secret.store", (_request, head) => ({
      output: { revision: head.revision + 1, stateHash: new Uint8Array(32).fill(7) },
    }));
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "integrity"));
    expect(ada.open.box.model.map.root().toHex()).toBe(root);
    expect(readPending(ada.open.box.path)).not.toBeNull();
    await ada.client.sync();
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("acknowledge without executing: the next answer gives it away, and the change is not lost", async () => {
    const lie = inventing(villain, "secret.store", (request, head) => ({
      output: { revision: head.revision + 1, stateHash: hashOfState(request) },
    }));
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "integrity"));
    await ada.client.sync();
    expect(await textOf(ada.client, "a")).toBe("second");
  });

  test("acknowledge without executing when the request is sent again", async () => {
    impatient(ada);
    const cut: Middle = async (operation, body, forward) =>
      operation === "secret.store" ? unsealed("unavailable", 503) : forward(operation, body);
    await villain.during(cut, () => rejected(ada.client.store(storing("a", "second")), "unavailable"));
    const lie = inventing(villain, "secret.store", (request, head) => ({
      output: { revision: head.revision + 1, stateHash: hashOfState(request) },
    }));
    await villain.during(lie, () => rejected(ada.client.sync(), "integrity"));
    expect(readPending(ada.open.box.path)).not.toBeNull();
    await ada.client.sync();
    expect(await textOf(ada.client, "a")).toBe("second");
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("call a change stale that it executed, to have it made twice", async () => {
    const executed = new Set<string>();
    const lie: Middle = async (operation, body, forward) => {
      if (operation !== "secret.store" || executed.size > 0) return forward(operation, body);
      executed.add(frameHead(body).requestId);
      await forward(operation, body);
      return inventing(villain, "secret.store", () => ({ error: "stale" }))(operation, body, forward);
    };
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "integrity"));
    await ada.client.sync();
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("stale for ever", async () => {
    let answers = 0;
    const lie = inventing(villain, "secret.store", () => {
      if (++answers > 20) throw new Error("asked on and on");
      return { error: "stale" };
    });
    await detected(villain, ada, lie, () => ada.client.store(storing("a", "second")));
    expect(await versions("a")).toEqual([1]);
  });

  test("stale while another device really writes, eight times in a row: rebased, nothing lost, nothing doubled", async () => {
    const second = await addTestDevice(villain.link, account, PASSWORD);
    devices.push(second);
    await ada.client.sync();
    let writes = 0;
    const busy: Middle = async (operation, body, forward) => {
      if (operation === "secret.store" && writes < 8) {
        writes += 1;
        villain.attack = null;
        await second.client.store(storing(`other ${writes}`, "value"));
        villain.attack = busy;
      }
      return forward(operation, body);
    };
    await villain.during(busy, () => ada.client.store(storing("a", "second")));
    expect(await versions("a")).toEqual([1, 2]);
    const names = (await ada.client.list(EVERYTHING)).items.map(({ name }) => name);
    expect(names).toEqual(["a", ...Array.from({ length: 8 }, (_, i) => `other ${i + 1}`)]);
  });

  test("refuse a change under seal although it was executed: shown as it is by the next command", async () => {
    const lie: Middle = async (operation, body, forward) => {
      if (operation !== "secret.store") return forward(operation, body);
      await forward(operation, body);
      return inventing(villain, "secret.store", () => ({ error: "denied" }))(operation, body, forward);
    };
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "denied"));
    await ada.client.sync();
    expect(await versions("a")).toEqual([1, 2]);
  });
});

function hashOfState(request: InputOf<CommitName>): Uint8Array {
  return stateHash(request.state.state);
}

describe("answers in clear", () => {
  const CLEAR = [
    "not_found",
    "exists",
    "stale",
    "conflict",
    "denied",
    "session_invalid",
    "replayed",
    "internal",
    "bad_input",
    "unavailable",
    "storage",
    "rate_limited",
    "integrity",
    "no_such_code",
  ];
  for (const code of CLEAR) {
    test(`${code} after execution: the request stays pending, is sent again exactly, has one effect`, async () => {
      impatient(ada);
      const lie: Middle = async (operation, body, forward) => {
        if (operation !== "secret.store") return forward(operation, body);
        await forward(operation, body);
        return unsealed(code);
      };
      await villain.during(lie, () =>
        rejected(
          ada.client.store(storing("a", "second")),
          "integrity",
          "session_invalid",
          "replayed",
          "internal",
          "bad_input",
          "unavailable",
          "storage",
          "rate_limited",
        ),
      );
      const pending = readPending(ada.open.box.path);
      expect(pending).not.toBeNull();
      const requestId = frameHead(sent("secret.store")[0] ?? new Uint8Array(0)).requestId;
      villain.seen.length = 0;
      await ada.client.sync();
      expect(frameHead(sent("secret.store")[0] ?? new Uint8Array(0)).requestId).toBe(requestId);
      expect(readPending(ada.open.box.path)).toBeNull();
      expect(await textOf(ada.client, "a")).toBe("second");
      expect(await versions("a")).toEqual([1, 2]);
      await once(requestId);
    });
  }

  test("an error in clear before execution: made once by the next command", async () => {
    impatient(ada);
    const lie: Middle = async (operation, body, forward) =>
      operation === "secret.store" ? unsealed("session_invalid", 401) : forward(operation, body);
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "session_invalid"));
    await ada.client.store(storing("b", "third"));
    expect(await versions("a")).toEqual([1, 2]);
    expect(ada.notices.join()).toContain("an earlier change was completed (secret.store)");
  });

  test("a success in clear is no success", async () => {
    impatient(ada);
    const lie: Middle = async (operation, body, forward) => {
      if (operation !== "secret.store") return forward(operation, body);
      const reply = JSON.stringify({ revision: 3, stateHash: "A".repeat(43) });
      return { status: 200, contentType: "application/json", body: reply, outcome: "ok" };
    };
    await villain.during(lie, () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
    await ada.client.sync();
    expect(await versions("a")).toEqual([1, 2]);
  });
});

/** The request has one `ok` entry in the log. */
async function once(requestId: RequestId): Promise<void> {
  const query = {
    name: null,
    action: null,
    fromMs: null,
    untilMs: null,
    limit: null,
    cursor: null,
    purpose: "list",
  } as const;
  const { items } = await ada.client.auditList({ ...query, requestId });
  expect(items.map(({ status }) => status)).toEqual(["ok"]);
}

describe("replies", () => {
  const list = () => ada.client.list(EVERYTHING);

  test("replay the reply to an earlier request, or answer with another request's reply", async () => {
    let old: Awaited<ReturnType<Middle>> | undefined;
    await villain.during(async (operation, body, forward) => {
      old = await forward(operation, body);
      return old;
    }, list);
    const replay: Middle = async () => old ?? unsealed("internal");
    await detected(villain, ada, replay, list);
    await detected(villain, ada, replay, () => ada.client.store(storing("b", "value")));
  });

  test("reflect the request as its reply", async () => {
    const reflect: Middle = async (_operation, body) => ({
      status: 200,
      contentType: "application/octet-stream",
      body,
      outcome: "ok",
    });
    await detected(villain, ada, reflect, list);
    const tail: Middle = async (_operation, body) => ({
      status: 200,
      contentType: "application/octet-stream",
      body: body.slice(40),
      outcome: "ok",
    });
    await detected(villain, ada, tail, list);
  });

  test("redirect a request to another operation: the server's own seal refuses, nothing happens", async () => {
    impatient(ada);
    for (const target of ["secret.purge", "secret.remove", "secret.import", "session.close", "secret.get"]) {
      const redirect: Middle = (operation, body, forward) =>
        forward(operation === "secret.store" ? target : operation, body);
      const before = onDisk(ada);
      await villain.during(redirect, () => rejected(ada.client.store(storing("a", `to ${target}`)), "bad_input"));
      expect(onDisk(ada)).toBe(before);
      await ada.client.sync();
      expect(await textOf(ada.client, "a")).toBe(`to ${target}`);
    }
    expect((await versions("a")).length).toBe(6);
  });

  test("redirect a request to another user's session", async () => {
    const eve = await registerDevice(villain.link, `eve ${count}`, PASSWORD);
    devices.push(eve);
    impatient(ada);
    const redirect: Middle = (operation, body, forward) => {
      const moved = body.slice();
      moved.set(Uint8Array.fromHex(eve.login.session.sessionId));
      return forward(operation, moved);
    };
    await villain.during(redirect, () => rejected(list(), "bad_input"));
    expect((await eve.client.list(EVERYTHING)).items).toEqual([]);
    expect((await list()).items.length).toBe(1);
  });

  test("deliver a request twice: executed once, the second is refused as replayed", async () => {
    impatient(ada);
    const outcomes: string[] = [];
    const twice: Middle = async (operation, body, forward) => {
      const first = await forward(operation, body);
      outcomes.push((await forward(operation, body)).outcome);
      return first;
    };
    await villain.during(twice, () => ada.client.store(storing("a", "second")));
    expect(new Set(outcomes)).toEqual(new Set(["replayed"]));
    expect(await versions("a")).toEqual([1, 2]);
  });

  test("deliver a request twice and give only the refusal back: the client asks again and learns the truth", async () => {
    const delivered = new Set<string>();
    const second: Middle = async (operation, body, forward) => {
      if (operation !== "secret.store" || delivered.has(operation)) return forward(operation, body);
      delivered.add(operation);
      await forward(operation, body);
      return forward(operation, body);
    };
    await villain.during(second, () => ada.client.store(storing("a", "second")));
    expect(await versions("a")).toEqual([1, 2]);
    expect(sent("secret.store").length).toBe(3);
  });

  const RAW: Record<string, (honest: string) => string | Uint8Array> = {
    nothing: () => "",
    "one line": (honest) => honest.split("\n")[0] ?? "",
    "no JSON": () => "\n\n\n",
    "bytes that are no text": () => Uint8Array.of(0xff, 0xfe, 10, 0xff),
    "an unknown field": (honest) => honest.replace('"ok":true', '"ok":true,"more":1'),
    "a missing field": (honest) => honest.replace('"revision"', '"revisions"'),
    "a number beyond reason": (honest) => honest.replace(/"auditSeq":\d+/, '"auditSeq":1e400'),
    "a negative number": (honest) => honest.replace(/"auditSeq":\d+/, '"auditSeq":-1'),
    "an output of another operation": (honest) => `${honest.split("\n")[0]}\n{"items":[]}`,
    "a list without end inside": (honest) => `${honest.split("\n")[0]}\n${"[".repeat(200_000)}`,
    "very deep nesting": (honest) => `${honest.split("\n")[0]}\n${"[".repeat(100_000)}${"]".repeat(100_000)}`,
    "ok with an error body": (honest) => `${honest.split("\n")[0]}\n{"code":"stale","message":"","retryAfterMs":null}`,
    "a byte-order mark": (honest) => `\ufeff${honest}`,
  };
  for (const [name, make] of Object.entries(RAW)) {
    test(`malformed under seal: ${name}`, async () => {
      await detected(villain, ada, babbling(villain, "secret.list", make), list);
      await detected(villain, ada, babbling(villain, "secret.store", make), () => ada.client.store(storing("a", name)));
      expect(await versions("a")).toEqual([1, 2]);
    });
  }

  test("garbage in place of a sealed reply: cut, flipped, empty", async () => {
    const bend =
      (edit: (body: Uint8Array) => Uint8Array): Middle =>
      async (operation, body, forward) => {
        const reply = await forward(operation, body);
        return { ...reply, body: edit(new Uint8Array(Buffer.from(reply.body as Uint8Array))) };
      };
    const edits = [
      (body: Uint8Array) => body.slice(0, -1),
      (body: Uint8Array) => body.map((byte, i) => (i === body.length - 1 ? byte ^ 1 : byte)),
      (body: Uint8Array) => body.map((byte, i) => (i === 0 ? byte ^ 1 : byte)),
      () => new Uint8Array(0),
    ];
    for (const edit of edits) await detected(villain, ada, bend(edit), list);
  });

  test("withhold every reply of a store: unknown, kept, settled by the next command", async () => {
    impatient(ada);
    const silent: Middle = async (operation, body, forward) => {
      const reply = await forward(operation, body);
      if (operation !== "secret.store") return reply;
      throw new Fault("outcome_unknown", "no answer");
    };
    const before = onDisk(ada);
    await villain.during(silent, () => rejected(ada.client.store(storing("a", "second")), "outcome_unknown"));
    expect(onDisk(ada)).toBe(before);
    expect((await ada.client.status()).sync?.pending).toBe(true);
    expect(await textOf(ada.client, "a")).toBe("second");
    expect((await ada.client.status()).sync?.pending).toBe(false);
    expect(await versions("a")).toEqual([1, 2]);
  });
});
