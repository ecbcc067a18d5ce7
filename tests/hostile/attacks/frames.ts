import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { join } from "node:path";
import type { ErrorCode } from "../../../src/errors.ts";
import { idBytes, type SessionId } from "../../../src/ids.ts";
import { frameHead } from "../../../src/protocol/channel.ts";
import { stateHash } from "../../../src/protocol/state.ts";
import type { Reply } from "../../../src/server/dispatch.ts";
import type { Middle } from "../../support/harness.ts";
import { babbling, editing, inventing, unsealed } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks, type End } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** Requests and answers on their way: held back, repeated, turned round, swollen, and what a server says it did. */

const LIST = ["list", "--fresh"];
const OCTETS = { status: 200, contentType: "application/octet-stream", outcome: "ok" } as const;
const failing = (exit: number, ...codes: ErrorCode[]): End => ({ exit, codes });

const listing = (lie: Middle, ends: End = "integrity"): Attempt => ({ lie, command: LIST, ends });

/** Frames of a session alone: a login of the device's own goes its way. */
const inSession =
  (middle: Middle): Middle =>
  (operation, body, forward) =>
    operation.startsWith("session.login") || operation.startsWith("server.")
      ? forward(operation, body)
      : middle(operation, body, forward);

const onStore =
  (middle: Middle): Middle =>
  (operation, body, forward) =>
    operation === "secret.store" ? middle(operation, body, forward) : forward(operation, body);

/** A store that is attacked, and has one effect in the end: one version by this command, one by the honest repetition. */
const storing = (make: (stage: Stage) => Middle, ends: End, versions = 2) => {
  return async (stage: Stage): Promise<Attempt> => {
    const name = stage.fresh("stored");
    stage.known.set(name, "once");
    return {
      lie: make(stage),
      command: ["store", name],
      stdin: "once",
      ends,
      after: async () => {
        const { data } = await stage.desk.ok(["history", name]);
        expect(data.items.map(({ version }: { version: number }) => version)).toEqual(
          Array.from({ length: versions }, (_, i) => i + 1),
        );
      },
    };
  };
};

const executedThen = (answer: (reply: Reply) => Reply): Middle =>
  onStore(async (operation, body, forward) => answer(await forward(operation, body)));

/** Once: what comes later goes its way. */
const first = (middle: Middle): Middle => {
  let done = false;
  return (operation, body, forward) => {
    if (done) return forward(operation, body);
    done = true;
    return middle(operation, body, forward);
  };
};

const body = (bytes: Uint8Array | ReadableStream): Middle =>
  inSession(async () => ({ ...OCTETS, body: bytes as Uint8Array }));

/** Bytes for ever: the real listener streams what it is given. */
const endless = (): Middle =>
  inSession(async () => {
    const chunk = new Uint8Array(65_536).fill(0x5b);
    const stream = new ReadableStream({ pull: (controller) => controller.enqueue(chunk) });
    return { ...OCTETS, body: stream as unknown as Uint8Array };
  });

const under = (make: (honest: string) => string | Uint8Array) => async (stage: Stage) =>
  listing(babbling(stage.world, "secret.list", make));

const FRAMES_OF_SESSIONS: Readonly<Record<string, Attack["run"]>> = {
  "the answer to an earlier request": async (stage) => {
    let old: Reply | undefined;
    const listening: Middle = async (operation, bytes, forward) => {
      const reply = await forward(operation, bytes);
      if (operation === "secret.list") old = reply;
      return reply;
    };
    await stage.world.during(listening, () => stage.desk.ok(LIST));
    return listing(inSession(async () => old ?? unsealed("internal")));
  },
  "the request as its own answer": async () =>
    listing(inSession(async (_operation, bytes) => ({ ...OCTETS, body: bytes }))),
  "the request without its head as its own answer": async () =>
    listing(inSession(async (_operation, bytes) => ({ ...OCTETS, body: bytes.slice(40) }))),
  "an answer with a bit flipped": async () =>
    listing(
      inSession(async (operation, bytes, forward) => {
        const reply = await forward(operation, bytes);
        const sealed = new Uint8Array(Buffer.from(reply.body as Uint8Array));
        return { ...reply, body: sealed.map((byte, i) => (i === sealed.length - 1 ? byte ^ 1 : byte)) };
      }),
    ),
  "an answer of nothing": async () => listing(body(new Uint8Array(0))),
  "a request to another operation": storing(
    () => (operation, bytes, forward) => forward(operation === "secret.store" ? "secret.purge" : operation, bytes),
    failing(2, "bad_input"),
  ),
  "a request to another user's session": async (stage) => {
    let eves: SessionId | undefined;
    const listening: Middle = (operation, bytes, forward) => {
      if (operation === "secret.list") eves = frameHead(bytes).sessionId;
      return forward(operation, bytes);
    };
    await stage.world.during(listening, () => stage.eve.device.ok(LIST));
    const lie = inSession((operation, bytes, forward) => {
      const moved = bytes.slice();
      moved.set(idBytes(eves ?? frameHead(bytes).sessionId));
      return forward(operation, moved);
    });
    return listing(lie, failing(2, "bad_input"));
  },
  "a request twice, and the first answer given": storing(
    () =>
      onStore(async (operation, bytes, forward) => {
        const reply = await forward(operation, bytes);
        expect((await forward(operation, bytes)).outcome).toBe("replayed");
        return reply;
      }),
    "harmless",
  ),
  "a request twice, and the refusal given": storing(
    () =>
      onStore(
        first(async (operation, bytes, forward) => {
          await forward(operation, bytes);
          return forward(operation, bytes);
        }),
      ),
    "harmless",
  ),
  "a request held back until its repetition was done": storing(() => {
    let held: Uint8Array | undefined;
    return onStore(async (operation, bytes, forward) => {
      if (!held) {
        held = bytes;
        return unsealed("unavailable", 503);
      }
      const reply = await forward(operation, bytes);
      await forward(operation, held);
      return reply;
    });
  }, "harmless"),
};

const ANSWERS: Readonly<Record<string, Attack["run"]>> = {
  "a change acknowledged as another one": storing(
    ({ world }) =>
      editing(world, { "secret.store": (output) => ({ ...output, stateHash: new Uint8Array(32).fill(7) }) }),
    "integrity",
  ),
  "a change acknowledged and not made": storing(
    ({ world }) =>
      inventing(world, "secret.store", ({ state }, head) => ({
        output: { revision: head.revision + 1, stateHash: stateHash(state.state) },
      })),
    "integrity",
  ),
  "a change called stale that was made": storing(({ world }) => {
    const stale = inventing(world, "secret.store", () => ({ error: "stale" }));
    return onStore(
      first(async (operation, bytes, forward) => {
        await forward(operation, bytes);
        return stale(operation, bytes, forward);
      }),
    );
  }, "integrity"),
  "a change called stale for ever": storing(
    ({ world }) => inventing(world, "secret.store", () => ({ error: "stale" })),
    "integrity",
    1,
  ),
};

const RECEIPTS: Readonly<Record<string, Attack["run"]>> = {
  "the first answer to a change": storing(
    () =>
      onStore(
        first(async (operation, bytes, forward) => {
          await forward(operation, bytes);
          return unsealed("unavailable", 503);
        }),
      ),
    "harmless",
  ),
  "every answer to a change, with a failure in clear instead": storing(
    () => executedThen(() => unsealed("internal", 500)),
    failing(1, "internal"),
  ),
  "every answer to a change, as if it had been refused": storing(
    () => executedThen(() => unsealed("conflict", 409)),
    "integrity",
  ),
  "every answer to a change, with a success in clear instead": storing(
    () => executedThen(() => ({ ...unsealed("ok", 200), body: '{"revision":3,"stateHash":""}' })),
    { exit: 7, codes: ["unreachable", "outcome_unknown"] },
  ),
};

export const FRAMES: readonly Attack[] = [
  ...attacks("replay, reorder, reflect or redirect a frame", ["4.1", "4.2", "4.3"], FRAMES_OF_SESSIONS),
  ...attacks("invent a mutating request", ["5.6"], ANSWERS),
  ...attacks("withhold a receipt", ["4.3", "5.6"], RECEIPTS),
  ...attacks("answer with a huge, deep or endless body", ["1.4"], {
    "sixteen megabytes": async () => listing(body(new Uint8Array(16_777_216))),
    "bytes without end": async () => listing(endless()),
    "JSON a hundred thousand deep": under((honest) => `${honest.split("\n")[0]}\n${"[".repeat(100_000)}`),
    "a number beyond reason": under((honest) => honest.replace(/"auditSeq":\d+/, '"auditSeq":1e400')),
    "a field that is not in the table": under((honest) => honest.replace('"ok":true', '"ok":true,"more":1')),
    "text that is none": under(() => Uint8Array.of(0xff, 0xfe, 10, 0xff)),
    "another operation's answer": under((honest) => `${honest.split("\n")[0]}\n{"items":[]}`),
  }),
  ...attacks("move a session to another account", ["4.1"], {
    "the session's row given to another user": async (stage) => {
      const sql = (text: string, ...values: Uint8Array[]) => {
        const db = new Database(join(stage.world.dir, "keyhold.db"));
        try {
          db.run("PRAGMA busy_timeout = 5000");
          db.run(text, values);
        } finally {
          db.close();
        }
      };
      const give = "UPDATE session SET user_id = ?2 WHERE session_id = ?1";
      const lie = inSession(async (operation, bytes, forward) => {
        const session = idBytes(frameHead(bytes).sessionId);
        sql(give, session, idBytes(stage.eve.userId));
        try {
          return { ...(await forward(operation, bytes)) };
        } finally {
          sql(give, session, idBytes(stage.userId));
        }
      });
      // a process that held the session's keys says that it is no session, another one that the row is not whole
      return listing(lie, stage.way === "by itself" ? "integrity" : failing(4, "session_invalid"));
    },
  }),
  ...attacks("weaken or overwrite what is generated", ["5.2"], {
    "the id of a secret that exists for a new one": async (stage) => {
      const { data } = await stage.desk.ok(["get", "note/a"]);
      const name = stage.fresh("made");
      stage.known.set(name, null);
      const lie = editing(stage.world, {
        "secret.reserve": ({ items }) => ({ items: items.map((item) => ({ ...item, keyId: data.keyId })) }),
      });
      return { lie, command: ["generate", name, "--type", "token"], ends: "integrity" };
    },
    "constant bytes for the server's part of a new secret": async (stage) => {
      const names = [stage.fresh("made"), stage.fresh("made")];
      const lie = editing(stage.world, {
        "secret.reserve": ({ items }) => ({ items: items.map((item) => ({ ...item, random: new Uint8Array(32) })) }),
      });
      const generate = (name = "") => ["generate", name, "--type", "token", "--replace"];
      for (const name of names) {
        await stage.world.during(lie, () => stage.desk.ok(generate(name)));
        stage.known.set(name, null);
      }
      return {
        lie,
        command: generate(names[0]),
        ends: "harmless",
        after: async () => {
          const values = await Promise.all(
            names.flatMap((name) =>
              [1, 2].map((version) => stage.desk.run(["read", `kh://${name}?version=${version}`])),
            ),
          );
          const seen = values.filter(({ code }) => code === 0).map(({ out }) => out);
          expect([seen.length, new Set(seen).size]).toEqual([3, 3]);
        },
      };
    },
  }),
];
