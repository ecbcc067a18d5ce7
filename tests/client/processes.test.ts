import { afterEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { mergeLogs, NO_LOG } from "../../src/client/logpin.ts";
import { adoptReceipts, boundOf } from "../../src/client/model.ts";
import { changePassword } from "../../src/client/password.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { type IncarnationId, newId } from "../../src/ids.ts";
import { type AccountWorld, openAccountWorld, PASSWORD } from "../support/accountworld.ts";
import {
  addTestDevice,
  passwordOf,
  random,
  registerDevice,
  startTestServer,
  type TestDevice,
  testSurroundings,
} from "../support/harness.ts";
import { editing, rejected, reopened, storing, textOf } from "../support/hostile.ts";
import { startTimeMachine } from "../support/timemachine.ts";

/** Two processes of one device, or two devices, that a server shows different things at the same time. */

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
const kept = (device: TestDevice): TestDevice => {
  ends.push(() => device.end());
  return device;
};

describe("two processes of one device", () => {
  test("that are shown two branches: the later one to write does not take the other's acknowledged change away", async () => {
    const machine = await startTimeMachine();
    ends.push(() => machine.close());
    const { villain } = machine;
    const first = kept(await registerDevice(villain.link, "ada", PASSWORD));
    await first.client.store(storing("a", "1", { where: "server" }));
    const other = kept(await addTestDevice(villain.link, "ada", PASSWORD));
    await first.client.sync();
    const second = await reopened(villain.link, first, "ada", PASSWORD);
    const fork = await machine.snapshot();
    let shown = false;
    villain.attack = async (operation, body, forward) => {
      if (operation !== "state.sync" || shown) return forward(operation, body);
      shown = true;
      // the other process writes, and is acknowledged, while this one waits for its answer
      await second.client.store(storing("a", "2", { where: "server", replace: true } as never));
      await machine.serve(fork);
      await other.client.store(storing("a", "3", { where: "server", replace: true } as never));
      await other.client.store(storing("a", "4", { where: "server", replace: true } as never));
      return forward(operation, body);
    };
    const fault = await rejected(first.client.sync(), "integrity");
    villain.attack = null;
    expect(fault.exit).toBe(8);
    const now = await reopened(null, first, "ada", PASSWORD);
    expect(boundOf(now.open.box.model).head.state.revision).toBe(boundOf(second.open.box.model).head.state.revision);
    // honest again, all is as it was not: the branch is refused
    await rejected(second.client.sync(), "integrity", "session_invalid");
  });

  test("that are shown two entries at one place of the log: the one that learns of the other's says so", async () => {
    const machine = await startTimeMachine();
    ends.push(() => machine.close());
    const device = kept(await registerDevice(machine.villain.link, "bob", PASSWORD));
    const bound = boundOf(device.open.box.model);
    const at = (seq: number, link = random(32)) => ({ seq, link });
    const [seen, base] = [at(70), { ...bound, verified: { ...at(9), revision: 1 } }];
    const of = (...receipts: ReturnType<typeof at>[]) => ({
      ...base,
      receipts,
      witnessed: receipts.at(-1) ?? base.witnessed,
    });
    const to = of(at(60), seen);
    adoptReceipts(to, of(seen, at(80)));
    expect(to.receipts.map(({ seq }) => seq)).toEqual([60, 70, 80]);
    for (const lie of [of(at(70), at(80)), of(at(80)), of(at(9))]) {
      const copy = { ...to };
      expect(() => adoptReceipts(copy, lie)).toThrow("log was tampered with");
      expect(copy).toEqual(to);
    }
  });

  test("of which one knows what was before a restore: nothing of that comes into the other's vault", async () => {
    const machine = await startTimeMachine();
    ends.push(() => machine.close());
    const device = kept(await registerDevice(machine.villain.link, "eve", PASSWORD));
    const bound = boundOf(device.open.box.model);
    const position = { seq: 900, link: random(32) };
    const before = { ...bound, incarnation: newId<IncarnationId>(random), receipts: [position], witnessed: position };
    const to = { ...bound, log: NO_LOG };
    adoptReceipts(to, before);
    expect(to).toEqual({ ...bound, log: NO_LOG });
  });
});

test("two processes that were shown two server-wide logs: not joined", () => {
  const [salt, key, link, signature] = [random(32), random(32), random(32), random(64)];
  const note = (size: number, root: string) => `origin\n${size}\n${root}\n\n— origin AAAA\n`;
  const promise = { seq: 9, link, atMs: 1, seenMs: 1, signature };
  const log = { ...NO_LOG, salt, checkpoint: { note: note(5, "one"), key }, oldest: promise };
  expect(mergeLogs(log, { ...log, checkpoint: { note: note(6, "two"), key } }).checkpoint?.note).toBe(note(6, "two"));
  expect(mergeLogs(NO_LOG, log)).toEqual(log);
  const lies = [
    { ...log, salt: random(32) },
    { ...log, checkpoint: { note: note(5, "two"), key } },
    { ...log, oldest: { ...promise, link: random(32) } },
    { ...log, oldest: null, newest: { ...promise, link: random(32) } },
  ];
  for (const lie of lies)
    for (const merge of [() => mergeLogs(log, lie), () => mergeLogs(lie, log)]) {
      expect(merge).toThrow("two processes of this device were shown different logs");
    }
});

describe("an older login with the session of a newer account", () => {
  test("does not give the vault its older password back", async () => {
    const world = await openAccountWorld();
    ends.push(() => world.close());
    const ada = await world.register("ada");
    const path = join(world.file.directory, "old.db");
    await world.server.store.backup(path);
    const next = "another password of ada";
    const passwords = { old: passwordOf(PASSWORD), next: passwordOf(next) };
    await changePassword(ada.home, ada.profile(), passwords, testSurroundings());
    const twin = await startTestServer({ path, as: world.server, limits: world.server.ctx.limits });
    ends.push(() => twin.close());
    Object.assign(twin.ctx, { statement: world.server.ctx.statement });
    const { userId } = ada.profile();
    const newest = async () => {
      const row = await world.server.store.transaction((tx) =>
        userId ? tx.account(userId) : Promise.resolve(undefined),
      );
      if (!row) throw new Error("no account");
      const { seq, link } = row.audit;
      return { revision: row.state.state.revision, stateHash: row.stateHash, auditSeq: seq, auditLink: link };
    };
    const lie = editing({ server: twin }, {}, newest);
    world.between = () => (name, type, body, remote) =>
      lie(name, body, (operation, bytes) => twin.dispatcher.handle(operation, type, bytes, remote));
    await rejected(ada.login(), "integrity");
    world.between = null;
    await rejected(ada.offline(), "wrong_password");
    await ada.login(next);
  });
});

describe("a rotation with the password of now", () => {
  let world: AccountWorld;

  test("while another device takes the server's newest login keys: nobody is locked out", async () => {
    world = await openAccountWorld();
    ends.push(() => world.close());
    const ada = await world.register("ada");
    const phone = await world.another("ada");
    await (await ada.login()).store(storing("db", "s3cret"));
    world.openWindow();
    let first = true;
    world.between =
      (honest) =>
      async (name, ...rest) => {
        if (name === "account.rotate" && first) {
          first = false;
          await phone.login();
        }
        return honest(name, ...rest);
      };
    const rotate = () =>
      renewAccount(ada.home, ada.profile(), passwordOf(PASSWORD), { next: null, revoke: null }, testSurroundings());
    const fault = await rejected(rotate(), "conflict");
    expect(fault.hint).toContain("again");
    world.between = null;
    for (const person of [ada, phone]) expect(await textOf(await person.login(), "db")).toBe("s3cret");
    await rotate();
    for (const person of [ada, phone]) expect(await textOf(await person.login(), "db")).toBe("s3cret");
    expect(world.server.faults).toEqual([]);
  });
});
