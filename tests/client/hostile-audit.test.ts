import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { newId, type RequestId, type UserId } from "../../src/ids.ts";
import { auditLink, type SaltedEntry } from "../../src/protocol/audit.ts";
import { stateHash } from "../../src/protocol/state.ts";
import type { OutputOf } from "../../src/wire/operations.ts";
import { addTestDevice, type Middle, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  detected,
  EVERYTHING,
  editing,
  onDisk,
  rejected,
  startVillain,
  storing,
  type Villain,
} from "../support/hostile.ts";

const PASSWORD = "a password of ada";
const ALL = {
  name: null,
  action: null,
  fromMs: null,
  untilMs: null,
  requestId: null,
  limit: null,
  cursor: null,
  purpose: "list",
} as const;
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
  await ada.client.get(asking("a", { fresh: true }));
  await ada.client.rename({ from: "a", to: "b" });
  await ada.client.get(asking("b", { fresh: true }));
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.end();
  expect(villain.server.faults).toEqual([]);
});

type Entries = readonly SaltedEntry[];
const verifying = (edit: (entries: Entries) => Entries): Middle =>
  editing(villain, { "audit.verify": (output) => ({ ...output, entries: edit(output.entries) }) });
const verify = () => ada.client.auditVerify();

/** Links entries anew after an edit, as the server can: every salt is its own. */
function rechained(entries: Entries): Entries {
  const out: SaltedEntry[] = [];
  for (const { entry, salt } of entries) {
    const before = out.at(-1);
    const seq = (entries[0]?.entry.seq ?? 1) + out.length;
    out.push({ entry: { ...entry, seq, previous: before ? auditLink(before) : entry.previous }, salt });
  }
  return out;
}

const at = (entries: Entries, action: string): number => entries.findIndex(({ entry }) => entry.action === action);
const changed = (entries: Entries, index: number, edit: Partial<SaltedEntry["entry"]>): Entries =>
  entries.map((item, i) => (i === index ? { ...item, entry: { ...item.entry, ...edit } } : item));

const EDITS: Record<string, (entries: Entries) => Entries> = {
  "strip the first entry": (e) => e.slice(1),
  "strip a read": (e) => e.toSpliced(at(e, "secret.get"), 1),
  "strip a mutation": (e) => e.toSpliced(at(e, "secret.store"), 1),
  "strip everything": () => [],
  "cut the end": (e) => e.slice(0, 3),
  "reorder two entries": (e) => {
    const [first, second] = [e[1], e[2]];
    return first && second ? e.with(1, second).with(2, first) : e;
  },
  "edit a time": (e) => changed(e, 2, { atMs: 1 }),
  "edit a status": (e) => changed(e, 1, { status: "login_failed" }),
  "edit an action": (e) => changed(e, at(e, "secret.get"), { action: "secret.list" }),
  "edit a count": (e) => changed(e, 1, { count: 2 }),
  "change a salt": (e) => e.map((item, i) => (i === 2 ? { ...item, salt: random(32) } : item)),
  "send an entry twice": (e) => [...e.slice(0, 2), ...e.slice(1)],
  "give another account's entries": (e) =>
    e.map((item) => ({ ...item, entry: { ...item.entry, userId: newId(random) } })),
};
/** Edits that also need the links to be made anew. */
const REWRITES: Record<string, (entries: Entries) => Entries> = {
  "strip a read": (e) => e.toSpliced(at(e, "secret.get"), 1),
  "strip a mutation": (e) => e.toSpliced(at(e, "secret.store"), 1),
  "edit a time": (e) => changed(e, 2, { atMs: 1 }),
  "edit an action": (e) => changed(e, at(e, "secret.get"), { action: "secret.list" }),
  "insert a read": (e) => [...e.slice(0, 4), ...e.slice(3)],
  "reorder two entries": (e) => {
    const [first, second] = [e[1], e[2]];
    return first && second ? e.with(1, second).with(2, first) : e;
  },
};

describe("audit verify", () => {
  for (const [name, edit] of Object.entries(EDITS)) {
    test(name, async () => {
      await detected(villain, ada, verifying(edit), verify);
      expect((await verify()).ok).toBe(true);
    });
  }
  for (const [name, edit] of Object.entries(REWRITES)) {
    test(`${name} and re-chain below a receipted head`, async () => {
      await detected(
        villain,
        ada,
        verifying((entries) => rechained(edit(entries))),
        verify,
      );
    });
  }

  test("cut the log below a receipted head, the head of every answer too", async () => {
    const cut = editing(
      villain,
      { "audit.verify": (output) => ({ ...output, entries: output.entries.slice(0, 3) }) },
      (head) => ({
        ...head,
        auditSeq: 3,
      }),
    );
    await detected(villain, ada, cut, verify);
    await detected(villain, ada, cut, () => ada.client.list(EVERYTHING));
  });

  test("replace the entry at a receipted head", async () => {
    const replaced = editing(villain, {}, (head) => ({
      ...head,
      auditSeq: ada.open.box.model.bound?.witnessed.seq ?? 0,
      auditLink: random(32),
    }));
    await detected(villain, ada, replaced, () => ada.client.get(asking("b", { fresh: true })));
  });

  test("what was verified stays verified: the next run starts there, and an edit behind it goes nowhere", async () => {
    const first = await verify();
    await ada.client.get(asking("b", { fresh: true }));
    const second = await verify();
    expect(second.verifiedFrom).toBe(first.size);
    await detected(
      villain,
      ada,
      verifying((e) => rechained(e.slice(1))),
      verify,
    );
    await detected(
      villain,
      ada,
      verifying((e) => changed(e, 0, { previous: random(32) })),
      verify,
    );
  });

  /** The log as B gets to see it: an entry edited, everything after it linked anew, in entries and heads alike. */
  async function forkedFor(edit: (entries: Entries) => Entries): Promise<Middle> {
    const fork = async (userId: UserId) => {
      const filter = {
        after: 0,
        limit: 100_000,
        keyId: null,
        action: null,
        fromMs: null,
        untilMs: null,
        requestId: null,
      };
      return rechained(edit(await villain.server.store.transaction((tx) => tx.audit(userId, filter))));
    };
    return editing(
      villain,
      {
        "audit.verify": async (output, { userId, request }) => {
          const all = (await fork(userId)).filter(({ entry }) => entry.seq > request.after);
          // the entry of this very request is not in the answer to it
          return { entries: all.slice(0, Math.min(output.entries.length, request.limit)), more: output.more };
        },
      },
      async (head, userId) => {
        const item = (await fork(userId))[head.auditSeq - 1];
        return { ...head, auditLink: item ? auditLink(item) : head.auditLink };
      },
    );
  }

  test("show different logs to two devices: found once one knows what the other signed", async () => {
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    devices.push(bob);
    let proof: OutputOf<"log.proof"> | undefined;
    const noting = editing(villain, {
      "log.proof": (output) => {
        proof = output;
        return output;
      },
    });
    await villain.during(noting, () => bob.client.auditVerify());
    // something happens that bob shall not learn of as it was
    await ada.client.get(asking("b", { fresh: true }));
    const hidden = (await ada.client.auditList(ALL)).items.at(-2)?.seq ?? 0;
    const fork = await forkedFor((entries) =>
      entries.map((item) =>
        item.entry.seq === hidden ? { ...item, entry: { ...item.entry, action: "secret.list", keyId: null } } : item,
      ),
    );
    // the server-wide log holds one of the two logs only: bob sees it at once, unless he is kept at its old checkpoint
    await villain.during(fork, () => rejected(bob.client.auditVerify(), "integrity"));
    const stalling = editing(villain, { "log.proof": (output) => (proof ? { ...proof, consistency: [] } : output) });
    const attack: Middle = (operation, body, forward) =>
      fork(operation, body, (name, bytes) => stalling(name, bytes, forward));
    await villain.during(attack, async () => {
      await bob.client.sync();
      expect((await bob.client.auditVerify()).ok).toBe(true);
    });
    // ada verifies her log, and signs with her next change what she verified
    await ada.client.auditVerify();
    await ada.client.store(storing("c", "value"));
    await villain.during(attack, () => rejected(bob.client.auditVerify(), "integrity"));
    await rejected(bob.client.auditVerify(), "integrity");
  });

  test("two devices that are shown the same log are content, whoever verifies first", async () => {
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    devices.push(bob);
    for (let i = 0; i < 3; i++) {
      await ada.client.auditVerify();
      await ada.client.store(storing(`of ada ${i}`, "value"));
      await bob.client.sync();
      await bob.client.store(storing(`of bob ${i}`, "value"));
      expect((await bob.client.auditVerify()).ok).toBe(true);
      await ada.client.list(EVERYTHING);
    }
    expect((await ada.client.auditVerify()).ok).toBe(true);
  });

  /** Appends an invented entry to the log that is shown, heads included. */
  const withInvented = async (
    make: (last: SaltedEntry) => Partial<SaltedEntry["entry"]>,
    more: Parameters<typeof editing>[1] = {},
  ): Promise<Middle> => {
    let made: SaltedEntry | undefined;
    const invent = (last: SaltedEntry): SaltedEntry => {
      made ??= {
        entry: { ...last.entry, seq: last.entry.seq + 1, previous: auditLink(last), ...make(last) },
        salt: random(32),
      };
      return made;
    };
    return editing(
      villain,
      {
        ...more,
        "audit.verify": ({ entries }) => {
          const last = entries.at(-1);
          return last ? { entries: [...entries, invent(last)], more: false } : { entries, more: false };
        },
      },
      (head) => (made ? { ...head, auditSeq: made.entry.seq, auditLink: auditLink(made) } : head),
    );
  };

  test("invent a mutating request without any state", async () => {
    const attack = await withInvented(() => ({
      action: "secret.purge",
      status: "ok",
      stateHash: null,
      requestId: newId<RequestId>(random),
    }));
    await detected(villain, ada, attack, verify);
  });

  test("invent a mutating request that names a state nobody signed", async () => {
    const attack = await withInvented(() => ({ action: "secret.purge", status: "ok", stateHash: random(32) }));
    await detected(villain, ada, attack, verify);
  });

  test("invent a mutating request and an unsigned state to go with it", async () => {
    const { bound } = ada.open.box.model;
    if (!bound) throw new Error("not bound");
    const requestId = newId<RequestId>(random);
    const state = {
      ...bound.head.state,
      revision: bound.head.state.revision + 1,
      previous: stateHash(bound.head.state),
      requestId,
    };
    const forged = { ...bound.head, state };
    const attack = await withInvented(
      () => ({
        action: "secret.purge",
        status: "ok",
        stateHash: stateHash(state),
        requestId,
        bodyHash: state.requestHash,
      }),
      {
        "state.sync": (output, { request }) =>
          request.what === "states" ? { ...output, states: [...output.states, forged] } : output,
      },
    );
    await detected(villain, ada, attack, verify);
  });

  test("invent a second effect of a change that was signed", async () => {
    const { bound } = ada.open.box.model;
    if (!bound) throw new Error("not bound");
    for (const other of [
      { requestId: newId<RequestId>(random) },
      { bodyHash: random(32) },
      { action: "secret.purge" },
      {},
    ]) {
      const twice = verifying((entries) => {
        const index = entries.findLastIndex(({ entry }) => entry.stateHash !== null);
        const item = entries[index];
        if (!item) return entries;
        const copy = { ...item, entry: { ...item.entry, ...other } };
        return rechained(entries.toSpliced(index + 1, 0, copy).slice(0, entries.length));
      });
      await detected(villain, ada, twice, verify);
    }
  });

  test("withhold signed states, or show forked ones", async () => {
    const states = (edit: (all: readonly unknown[]) => readonly unknown[]): Middle =>
      editing(villain, {
        "state.sync": (output, { request }) =>
          request.what === "states" ? ({ ...output, states: edit(output.states) } as typeof output) : output,
      });
    for (const edit of [
      (all: readonly unknown[]) => all.slice(1),
      (all: readonly unknown[]) => all.slice(0, -1),
      () => [],
      (all: readonly unknown[]) => all.toReversed(),
    ]) {
      await detected(villain, ada, states(edit), verify);
    }
  });

  test("pages without end", async () => {
    let pages = 0;
    const endless = editing(villain, {
      "audit.verify": (output) => {
        if (++pages > 50) throw new Error("asked on and on");
        return { ...output, more: true };
      },
    });
    await villain.during(endless, verify);
    const same = editing(villain, {
      "audit.verify": (output) => {
        if (++pages > 50) throw new Error("asked on and on");
        return { entries: output.entries.slice(0, 1), more: true };
      },
    });
    await villain.during(same, verify);
    const beyond = verifying((entries) => {
      const out = [...entries];
      for (let i = 0; i < 100; i++) {
        const last = out.at(-1);
        if (!last) break;
        out.push({
          entry: {
            ...last.entry,
            seq: last.entry.seq + 1,
            previous: auditLink(last),
            stateHash: null,
            action: "secret.get",
          },
          salt: random(32),
        });
      }
      return out;
    });
    await ada.client.get(asking("b", { fresh: true }));
    await detected(villain, ada, beyond, verify);
  });

  test("small pages and concurrent changes are no attack", async () => {
    const small = editing(villain, {
      "audit.verify": (output) => ({ entries: output.entries.slice(0, 2), more: true }),
    });
    const done = await villain.during(small, verify);
    expect(done.ok).toBe(true);
    const bob = await addTestDevice(villain.link, account, PASSWORD);
    devices.push(bob);
    let writes = 0;
    const busy: Middle = async (operation, body, forward) => {
      if (operation === "audit.verify" && writes < 2) {
        writes += 1;
        villain.attack = null;
        await bob.client.store(storing(`c${writes}`, "value"));
        villain.attack = busy;
      }
      return forward(operation, body);
    };
    expect((await villain.during(busy, verify)).ok).toBe(true);
    expect(writes).toBe(2);
  });
});

describe("audit list", () => {
  const listing = (edit: (entries: Entries) => Entries): Middle =>
    editing(villain, { "audit.list": (output) => ({ ...output, entries: edit(output.entries) }) });

  test("entries out of order, twice, of another account, or beyond its own head", async () => {
    const edits: ((e: Entries) => Entries)[] = [
      (e) => e.toReversed(),
      (e) => e.flatMap((item) => [item, item]),
      (e) => changed(e, 1, { userId: newId(random) }),
      (e) => changed(e, e.length - 1, { seq: 1_000_000 }),
    ];
    for (const edit of edits) await detected(villain, ada, listing(edit), () => ada.client.auditList(ALL));
  });

  test("answer another question: entries that the filter excludes", async () => {
    const all: Entries[] = [];
    await villain.during(
      listing((e) => {
        all.push(e);
        return e;
      }),
      () => ada.client.auditList(ALL),
    );
    const everything = listing(() => all[0] ?? []);
    await detected(villain, ada, everything, () => ada.client.auditList({ ...ALL, action: "secret.get" }));
    await detected(villain, ada, everything, () => ada.client.auditList({ ...ALL, name: "b" }));
    await detected(villain, ada, everything, () =>
      ada.client.auditList({ ...ALL, requestId: newId<RequestId>(random) }),
    );
    await detected(villain, ada, everything, () => ada.client.auditList({ ...ALL, untilMs: 1 }));
    await detected(villain, ada, everything, () => ada.client.auditList({ ...ALL, limit: 2 }));
  });

  test("call an entry signed that is not", async () => {
    const claims: ((e: Entries) => Entries)[] = [
      (e) => changed(e, at(e, "secret.get"), { stateHash: random(32) }),
      (e) => {
        const signed = e.find(({ entry }) => entry.action === "secret.store")?.entry.stateHash ?? null;
        return changed(e, at(e, "secret.get"), { stateHash: signed });
      },
    ];
    for (const edit of claims) await detected(villain, ada, listing(edit), () => ada.client.auditList(ALL));
    const { items } = await ada.client.auditList(ALL);
    expect(items.filter(({ signed }) => signed).map(({ action }) => action)).toEqual([
      "account.register",
      "secret.store",
      "secret.update",
    ]);
  });

  test("pages without end", async () => {
    let pages = 0;
    const first: SaltedEntry[] = [];
    const endless = editing(villain, {
      "audit.list": (output) => {
        if (++pages > 50) throw new Error("asked on and on");
        if (first.length === 0) first.push(...output.entries);
        return { entries: first, more: true };
      },
    });
    const before = onDisk(ada);
    await villain.during(endless, () => rejected(ada.client.auditList(ALL), "integrity"));
    expect(onDisk(ada)).toBe(before);
  });

  test("filters, pages and cursors of an honest server", async () => {
    const all = (await ada.client.auditList(ALL)).items;
    const paged: number[] = [];
    for (let cursor: string | null = null; ; ) {
      const page = await ada.client.auditList({ ...ALL, limit: 2, cursor });
      paged.push(...page.items.map(({ seq }) => seq));
      cursor = page.next;
      if (cursor === null || paged.length > 50) break;
    }
    expect(paged.slice(0, all.length)).toEqual(all.map(({ seq }) => seq));
    const gets = await ada.client.auditList({ ...ALL, action: "secret.get", name: "b" });
    expect(gets.items.map(({ action, name }) => `${action} ${name}`)).toEqual(["secret.get b", "secret.get b"]);
    await rejected(ada.client.auditList({ ...ALL, cursor: "x" }), "bad_input");
  });
});
