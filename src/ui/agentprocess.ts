import { readSync } from "node:fs";
import { join } from "node:path";
import { agentSocket, lockAgent } from "../client/agent.ts";
import { replaceAgent } from "../client/agentserve.ts";
import type { KeyholdClient } from "../client/api.ts";
import { loginNewDevice } from "../client/enrol.ts";
import { type AccountInput, type Home, openProfile } from "../client/home.ts";
import { type Profile, readProfile } from "../client/profile.ts";
import { concat, wipe } from "../crypto/bytes.ts";
import { Fault, isErrorCode } from "../errors.ts";
import { bool, decodeJson, encodeJson, nullable, type Of, oneOf, struct, text, u53 } from "../wire/codec.ts";
import { plainEnvironment } from "../wire/environment.ts";
import { agentOptionsCodec } from "./agentoptions.ts";
import { askByProgram } from "./confirm.ts";
import { closeQuietly, sealProcess, selfCommand, writeAll } from "./process.ts";

/** What the starting command tells the agent on its standard input: one JSON line, then the bare password. */
const orderCodec = struct({
  profiles: text({ min: 1, max: 4_096 }),
  vaults: text({ min: 1, max: 4_096 }),
  runtime: text({ min: 1, max: 4_096 }),
  profile: text({ min: 1, max: 64 }),
  kdf: oneOf(["default", "test"]),
  /** null: the defaults. */
  options: nullable(agentOptionsCodec),
  /** A code of the second factor, for one try; null: it is told where one is needed. */
  factor: nullable(text({ min: 1, max: 128 })),
  /** Opens the vault alone where a code is needed and none is told. */
  vaultAlone: bool,
  /** Sets this home up as a further device first. */
  device: nullable(
    struct({
      url: text({ min: 1, max: 2_048 }),
      pin: text({ min: 1, max: 128 }),
      tlsCaPem: nullable(text({ min: 1, max: 65_536 })),
      account: text({ min: 1, max: 256 }),
    }),
  ),
});
export type AgentOrder = Of<typeof orderCodec> & { readonly password: Uint8Array };

const PASSWORD_MAX = 1_024;
const ORDER_MAX = 256 * 1_024;

/** An order as it is sent. Wipe the result. */
export function orderBytes(order: AgentOrder): Uint8Array {
  const { password, ...rest } = order;
  return concat(new TextEncoder().encode(`${encodeJson(orderCodec, rest)}\n`), password);
}

/** Reads an order and wipes `sent`; the caller wipes the password. @throws Fault bad_input */
export function readOrder(sent: Uint8Array): AgentOrder {
  try {
    const end = sent.indexOf(10);
    const password = sent.slice(end + 1);
    if (end < 0 || password.length === 0 || password.length > PASSWORD_MAX) {
      throw new Fault("bad_input", "the agent's order is damaged");
    }
    return { ...decodeJson(orderCodec, sent.subarray(0, end)), password };
  } finally {
    wipe(sent);
  }
}

/** Standard input to its end, in one buffer, so that no copy of the password stays behind. */
function readInput(): Uint8Array {
  const buffer = new Uint8Array(ORDER_MAX);
  for (let length = 0; length < buffer.length; ) {
    const got = readSync(0, buffer, length, buffer.length - length, null);
    if (got === 0) return buffer.subarray(0, length);
    length += got;
  }
  wipe(buffer);
  throw new Fault("bad_input", "the agent's order is too long");
}

/** What the agent answers once, on its standard output. */
const reportCodec = struct({
  ok: bool,
  login: nullable(
    struct({
      account: text({ max: 128 }),
      userId: text({ max: 32 }),
      sessionId: text({ max: 32 }),
      expiresAt: text({ max: 32 }),
      requestId: text({ max: 32 }),
    }),
  ),
  notices: text({ max: 65_536 }),
  code: text({ max: 64 }),
  message: text({ max: 4_096 }),
  why: nullable(text({ max: 4_096 })),
  hint: nullable(text({ max: 4_096 })),
  retryAfterMs: nullable(u53),
});
export type AgentReport = Of<typeof reportCodec>;

const SAID = { ok: true, login: null, notices: "", code: "", message: "", why: null, hint: null, retryAfterMs: null };

function failed(error: unknown): AgentReport {
  const fault = error instanceof Fault ? error : new Fault("internal", "the agent failed");
  return {
    ...SAID,
    ok: false,
    code: fault.code,
    message: fault.message,
    why: fault.why ?? null,
    hint: fault.hint ?? null,
    retryAfterMs: fault.retryAfterMs === undefined ? null : Math.ceil(fault.retryAfterMs),
  };
}

/**
 * Starts the agent of a profile; it logs in or unlocks by itself, so that the key derivation is paid once
 * (docs/adr/0010). An agent that runs already is replaced once the new one has the profile open.
 *
 * @returns What the login told, or null when only the vault was opened.
 * @throws Fault of the login; internal when the agent did not start
 */
export async function startAgent(order: AgentOrder, notice: (text: string) => void): Promise<AgentReport["login"]> {
  const input = orderBytes(order);
  const child = Bun.spawn(selfCommand("__agent"), {
    stdin: input,
    stdout: "pipe",
    stderr: "ignore",
    env: plainEnvironment(process.env),
    cwd: "/",
    detached: true,
  });
  try {
    const report = decodeJson(reportCodec, await firstLine(child.stdout));
    child.unref();
    for (const line of report.notices.split("\n")) if (line !== "") notice(line);
    if (report.ok) return report.login;
    throw new Fault(isErrorCode(report.code) ? report.code : "internal", report.message, {
      ...(report.why === null ? {} : { why: report.why }),
      ...(report.hint === null ? {} : { hint: report.hint }),
      ...(report.retryAfterMs === null ? {} : { retryAfterMs: report.retryAfterMs }),
    });
  } finally {
    wipe(input);
  }
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const reader = stream.getReader();
  let seen = new Uint8Array(0);
  for (;;) {
    const { value, done } = await reader.read();
    if (value) seen = Uint8Array.from([...seen, ...value]);
    const end = seen.indexOf(10);
    if (end >= 0) {
      await reader.cancel();
      return seen.subarray(0, end);
    }
    if (done) throw new Fault("internal", "the agent did not start");
  }
}

/** The agent's own process: reads its order, opens the profile, reports, lets go of stdio, serves until it is locked. */
export async function agentMain(): Promise<number> {
  sealProcess();
  const notices: string[] = [];
  let order: AgentOrder;
  let opened: { client: KeyholdClient; login: AgentReport["login"] };
  let ended: Promise<void>;
  try {
    order = readOrder(readInput());
    try {
      opened = await open(order, notices);
    } finally {
      wipe(order.password);
    }
    const profile = readProfile(order.profiles, order.profile);
    if (!profile) throw new Fault("not_found", "the profile is gone");
    const agent = await replaceAgent({
      socket: agentSocket(order.runtime, order.profile),
      profile: order.profile,
      client: opened.client,
      home: join(order.vaults, profile.vault),
      ...running(order),
      takeNotices: () => notices.splice(0),
    });
    ended = agent.ended;
  } catch (error) {
    report(failed(error));
    return 1;
  }
  report({ ...SAID, login: opened.login, notices: notices.splice(0).join("\n") });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    // in place of the program's own handler, which would end it at once and leave the socket behind
    process.removeAllListeners(signal);
    process.on(signal, () => void lockAgent(agentSocket(order.runtime, order.profile)));
  }
  closeQuietly(1);
  await ended;
  return 0;
}

function running({ options, profile }: AgentOrder) {
  if (options === null) return {};
  const { idleMs, absoluteMs, lockOnSuspend, confirm: patterns, command, display } = options;
  const ask = command === null ? null : askByProgram(command, profile, display);
  return { idleMs, absoluteMs, lockOnSuspend, confirm: { patterns, ask } };
}

function report(value: AgentReport): void {
  writeAll(1, new TextEncoder().encode(`${encodeJson(reportCodec, value)}\n`));
}

async function open(
  order: AgentOrder,
  notices: string[],
): Promise<{ client: KeyholdClient; login: AgentReport["login"] }> {
  const home: Home = { profiles: order.profiles, vaults: order.vaults };
  const around = {
    now: Date.now,
    random: (length: number) => crypto.getRandomValues(new Uint8Array(length)),
    notice: (line: string) => void notices.push(line),
    factor: { code: async (refused: Fault | null) => (refused === null ? order.factor : null) },
  };
  if (order.device) {
    const { account, ...server } = order.device;
    const input: AccountInput = { profile: order.profile, server, account, password: order.password, kdf: order.kdf };
    const done = await loginNewDevice(home, input, around);
    return { client: done.client, login: said(done) };
  }
  const profile: Profile | null = readProfile(home.profiles, order.profile);
  if (!profile) throw new Fault("not_found", "the profile is gone");
  const opened = await openProfile(home, { ...profile, kdf: order.kdf }, order.password, around, {
    keep: true,
    vaultAlone: order.vaultAlone,
  });
  return { client: opened.client, login: opened.login ? said(opened.login) : null };
}

function said(login: {
  account: string;
  userId: string;
  session: { id: string; expiresAt: string };
  requestId: string;
}): AgentReport["login"] {
  const { account, userId, session, requestId } = login;
  return { account, userId, sessionId: session.id, expiresAt: session.expiresAt, requestId };
}
