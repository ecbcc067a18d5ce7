import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { WorkspaceId } from "../../../src/ids.ts";
import { tokenHash, tokenText } from "../../../src/protocol/keyring/token.ts";
import { createDispatcher, type Dispatcher, type Reply } from "../../../src/server/dispatch.ts";
import type { WorkspaceView } from "../../../src/wire/keyring/views.ts";
import type { TokenOperation } from "../../../src/wire/operations.ts";
import {
  codeOf,
  nextLink,
  type RegistryPerson,
  type RegistryWorld,
  registryWorld,
} from "../../support/registryworld.ts";

const DAY = 86_400_000;
const ADDRESS = "192.0.2.7";

let world: RegistryWorld;
let ann: RegistryPerson;
let ben: RegistryPerson;
let workspace: WorkspaceView;
let dispatcher: Dispatcher;
const faults: unknown[] = [];

beforeEach(async () => {
  world = await registryWorld({ limits: { loginFreeFailuresPerAddress: 3, tokensPerWorkspace: 3 } });
  ann = await world.person("ann");
  ben = await world.person("ben");
  workspace = await world.workspace([ann, ben]);
  faults.length = 0;
  dispatcher = createDispatcher(world.site.ctx, (fault) => faults.push(fault), null, world.service);
});
afterEach(async () => {
  expect(faults).toEqual([]);
  await world.close();
});

const create = (who = ann, name = "billing", lifeMs = DAY, workspaceId: WorkspaceId = workspace.workspaceId) =>
  world.call("workspace.token.create", { workspaceId, name, expiresAtMs: world.nowMs + lifeMs }, who);

function ask(
  authorization: string | null,
  { name = "integrator.workspace" as TokenOperation, body = "{}", address = ADDRESS } = {},
): Promise<Reply> {
  return dispatcher.handle(name, "application/json", new TextEncoder().encode(body), { address, authorization });
}

const bearer = (token: string) => `Bearer ${token}`;
const codeOfReply = ({ status, body, outcome }: Reply) => {
  expect(typeof body).toBe("string");
  return [status, outcome, status === 200 ? "" : JSON.parse(String(body)).message];
};

/** The one answer for a token that opens nothing. */
const REFUSED = [401, "session_invalid", "this token opens no workspace"];

describe("the text of a token", () => {
  test("is a prefix and 43 characters, and its hash is of its bytes alone", () => {
    const text = tokenText(new Uint8Array(32).fill(7));
    expect(text).toBe("kht_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
    expect(tokenHash(text)?.length).toBe(32);
    expect(tokenHash(text)).not.toEqual(tokenHash(tokenText(new Uint8Array(32).fill(8))));
  });

  test("has one form", () => {
    const text = tokenText(new Uint8Array(32).fill(7));
    // the last character of 43 has two unused bits: only zeros are taken
    for (const other of [
      "",
      text.slice(4),
      text.toUpperCase(),
      `${text}A`,
      text.slice(0, -1),
      `${text.slice(0, -1)}d`,
      `${text.slice(0, -1)}=`,
      ` ${text.slice(1)}`,
    ])
      expect([other, tokenHash(other)]).toEqual([other, null]);
  });
});

describe("a token", () => {
  test("is told once, kept as a hash, and opens its workspace for reading", async () => {
    const { token, tokenId } = await create();
    expect(token).toMatch(/^kht_[A-Za-z0-9_-]{43}$/);
    expect(tokenId).toBe(tokenHash(token)?.toHex() ?? "");
    const reply = await ask(bearer(token));
    expect([reply.status, reply.contentType]).toEqual([200, "application/json"]);
    expect(JSON.parse(String(reply.body))).toMatchObject({
      workspaceId: workspace.workspaceId,
      name: "treasury",
      owners: ["ann", "ben"],
      balance: 0,
    });
    const rows = await world.store.transaction((tx) => tx.documents("workspaceToken", workspace.workspaceId, null, 9));
    expect(rows.length).toBe(1);
    for (const row of rows) expect(new TextDecoder().decode(row.body)).not.toContain(token.slice(4));
    expect(JSON.stringify(world.notices)).not.toContain(token.slice(4));
  });

  test("is said in the header's one form, whatever its letters' case", async () => {
    const { token } = await create();
    expect((await ask(`bearer  ${token}`)).status).toBe(200);
    for (const header of [
      null,
      "",
      token,
      "Bearer",
      `Basic ${token}`,
      `Bearer ${token} x`,
      `${bearer(token)}, ${bearer(token)}`,
      `Bearer "${token}"`,
    ]) {
      const address = `192.0.2.${40 + (header?.length ?? 0)}`;
      expect([header, ...codeOfReply(await ask(header, { address }))]).toEqual([header, ...REFUSED]);
    }
  });

  test("is refused with one answer when unknown, expired, revoked, or its maker owns nothing, or has no account", async () => {
    const tokens = await Promise.all([create(ann, "one", 5_000), create(ann, "two"), create(ben, "three")]);
    const [expiring, revoked, removed] = tokens.map(({ token }) => bearer(token));
    for (const { token } of tokens) expect((await ask(bearer(token))).status).toBe(200);
    const unknown = bearer(tokenText(new Uint8Array(32).fill(9)));
    let at = 0;
    const refused = async (header = "") => {
      at += 1;
      return codeOfReply(await ask(header, { address: `198.51.100.${at}`, body: "not even JSON" }));
    };
    expect(await refused(unknown)).toEqual(REFUSED);

    world.nowMs += 5_000;
    expect(await refused(expiring)).toEqual(REFUSED);

    await world.call(
      "workspace.token.revoke",
      { workspaceId: workspace.workspaceId, tokenId: tokens[1]?.tokenId ?? "" },
      ben,
    );
    expect(await refused(revoked)).toEqual(REFUSED);

    const link = nextLink(
      workspace,
      {
        approvers: workspace.policy.document.approvers.slice(0, 1),
        groups: [{ name: "owners", members: ["ann"] }],
        admins: { kind: "approver", name: "ann" },
        rules: workspace.policy.document.rules.map((rule) => ({ ...rule, require: { kind: "approver", name: "ann" } })),
      },
      [ann, ben],
    );
    await world.call("workspace.policy.set", { policy: link }, ann);
    expect(await refused(removed)).toEqual(REFUSED);

    const { token } = await create(ann, "four");
    expect((await ask(bearer(token))).status).toBe(200);
    await world.store.transaction(async (tx) => tx.setDisabled(ann.userId, true));
    expect(await refused(bearer(token))).toEqual(REFUSED);
  });

  test("lives at most a year, has a name of its own, and is one of so many", async () => {
    for (const lifeMs of [0, -1, 365 * DAY + 1]) expect(await codeOf(create(ann, "x", lifeMs))).toBe("bad_input");
    await create(ann, "a", 365 * DAY);
    expect(await codeOf(create(ben, "a"))).toBe("exists");
    await create(ann, "b", 1_000);
    await create(ann, "c");
    expect(await codeOf(create(ben, "d"))).toBe("rate_limited");
    // what has expired counts no more, and is gone
    world.nowMs += 1_000;
    await create(ben, "b");
    const { items } = await world.call("workspace.token.list", { workspaceId: workspace.workspaceId }, ann);
    expect(items.map(({ name }) => name).toSorted()).toEqual(["a", "b", "c"]);
  });

  test("is made, listed and revoked by owners of its workspace alone; for others there is no workspace", async () => {
    const eve = await world.person("eve");
    const none = await world.stranger("nobody");
    const { tokenId } = await create();
    const { workspaceId } = workspace;
    for (const who of [eve, none]) {
      expect(await codeOf(create(who))).toBe("not_found");
      expect(await codeOf(world.call("workspace.token.list", { workspaceId }, who))).toBe("not_found");
      expect(await codeOf(world.call("workspace.token.revoke", { workspaceId, tokenId }, who))).toBe("not_found");
    }
    const other = await world.workspace([eve], { name: "other" });
    const elsewhere = { workspaceId: other.workspaceId, tokenId };
    expect(await codeOf(world.call("workspace.token.revoke", elsewhere, eve))).toBe("not_found");
    const { items } = await world.call("workspace.token.list", { workspaceId }, ben);
    expect(items).toEqual([{ tokenId, name: "billing", createdAtMs: world.nowMs, expiresAtMs: world.nowMs + DAY }]);
  });

  test("leaves events without itself, and one entry an hour in its maker's log", async () => {
    const { token, tokenId } = await create();
    for (let i = 0; i < 3; i++)
      expect((await ask(bearer(token), { name: "integrator.events", body: '{"after":0}' })).status).toBe(200);
    world.nowMs += 3_600_000;
    expect((await ask(bearer(token))).status).toBe(200);
    await world.call("workspace.token.revoke", { workspaceId: workspace.workspaceId, tokenId }, ann);
    const log = await world.store.transaction((tx) =>
      tx.audit(ann.userId, {
        after: 0,
        limit: 100,
        keyId: null,
        action: null,
        fromMs: null,
        untilMs: null,
        requestId: null,
      }),
    );
    expect(log.map(({ entry }) => [entry.action, entry.status, entry.keyId])).toEqual([
      ["integrator.events", "ok", workspace.workspaceId.slice(0, 32)],
      ["integrator.workspace", "ok", workspace.workspaceId.slice(0, 32)],
    ] as never);
    const told = world.notices.filter(({ event }) => event.startsWith("token."));
    expect(told.map(({ event, detail }) => [event, detail])).toEqual([
      ["token.created", "billing"],
      ["token.revoked", "billing"],
    ]);
  });
});

test("a token is revoked by the beginning of its id, if that is one token's alone", async () => {
  const made = await Promise.all(["one", "two", "three"].map((name) => create(ann, name)));
  const { workspaceId } = workspace;
  const revoke = (tokenId: string) => codeOf(world.call("workspace.token.revoke", { workspaceId, tokenId }, ben));
  const [first, ...others] = made.map(({ tokenId }) => tokenId);
  let length = 1;
  while (others.some((id) => id.startsWith(first?.slice(0, length) ?? ""))) {
    expect(await revoke(first?.slice(0, length) ?? "")).toBe("ambiguous");
    length += 1;
  }
  const beginning = first?.slice(0, length) ?? "";
  expect([await revoke(beginning), await revoke(beginning)]).toEqual(["ok", "not_found"]);
  expect((await ask(bearer(made[0]?.token ?? ""))).outcome).toBe("session_invalid");
  for (const { token } of made.slice(1)) expect((await ask(bearer(token))).outcome).toBe("ok");
});

describe("guesses", () => {
  test("wait after a few from one address; a token that is right goes through all the same", async () => {
    const { token } = await create();
    const guess = bearer(tokenText(new Uint8Array(32).fill(1)));
    for (let i = 0; i < 4; i++) expect((await ask(guess)).outcome).toBe("session_invalid");
    const limited = await ask(guess);
    expect([limited.status, limited.outcome, (limited.retryAfterMs ?? 0) > 0]).toEqual([429, "rate_limited", true]);
    expect((await ask(bearer(token))).status).toBe(200);
    expect((await ask(guess, { address: "203.0.113.9" })).outcome).toBe("session_invalid");
    // logins have a bucket of their own
    const bucket = await world.store.transaction((tx) => tx.limit(`address:${ADDRESS}`));
    expect(bucket).toBeUndefined();
  });

  test("learn nothing of the input's form, and whoever has a token does", async () => {
    const { token } = await create();
    for (const body of ["{}", "[", '{"after":-1}', '{"after":0,"more":1}']) {
      expect((await ask(bearer(token), { name: "integrator.events", body })).outcome).toBe("bad_input");
      expect((await ask(null, { name: "integrator.events", body, address: `203.0.113.${body.length}` })).outcome).toBe(
        "session_invalid",
      );
    }
  });
});

describe("a server", () => {
  test("that is no registry says so", async () => {
    const plain = createDispatcher(world.site.ctx, (fault) => faults.push(fault));
    const reply = await plain.handle("integrator.workspace", "application/json", new TextEncoder().encode("{}"), {
      address: ADDRESS,
    });
    expect([reply.status, reply.outcome]).toEqual([415, "unsupported"]);
  });

  test("takes JSON alone, and no token for anything else", async () => {
    const { token } = await create();
    const input = new TextEncoder().encode("{}");
    const from = { address: ADDRESS, authorization: bearer(token) };
    expect((await dispatcher.handle("integrator.workspace", "application/octet-stream", input, from)).outcome).toBe(
      "unsupported",
    );
    expect((await dispatcher.handle("workspace.list", "application/octet-stream", input, from)).outcome).not.toBe("ok");
    expect((await dispatcher.handle("workspace.list", "application/json", input, from)).outcome).toBe("unsupported");
  });
});
