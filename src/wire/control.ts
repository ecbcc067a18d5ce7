import { join } from "node:path";
import { Fault, isErrorCode } from "../errors.ts";
import type { IncarnationId, UserId } from "../ids.ts";
import { bool, type Codec, decodeJson, encodeJson, id, list, nullable, oneOf, struct, text, u53 } from "./codec.ts";
import { errorBody } from "./operations.ts";
import { accountName } from "./records.ts";

function op<I, O>(input: Codec<I>, output: Codec<O>): { readonly input: Codec<I>; readonly output: Codec<O> } {
  return { input, output };
}

const empty = struct({});
const byAccount = struct({ account: accountName });
const changed = struct({ account: accountName, userId: id<UserId>() });

/** Every operation of the control socket: of the machine's administrator, not of accounts (docs/operations.md). */
export const controls = {
  status: op(
    empty,
    struct({
      pid: u53,
      version: text({ min: 1, max: 64 }),
      url: text({ min: 1, max: 512 }),
      pin: text({ min: 1, max: 64 }),
      startedAtMs: u53,
      registration: oneOf(["open", "invite", "closed"]),
      engine: text({ min: 1, max: 32 }),
      incarnation: id<IncarnationId>(),
      accounts: u53,
      disabled: u53,
      sessions: u53,
      invites: u53,
      /** Requests answered since the start. */
      requests: u53,
    }),
  ),
  check: op(
    empty,
    struct({
      ok: bool,
      items: list(struct({ name: text({ min: 1, max: 128 }), ok: bool, detail: nullable(text({ max: 1_024 })) }), {
        max: 10_000,
      }),
    }),
  ),
  /** `expiresMs` from now; null: seven days. The code is shown once and not stored. */
  "invite.create": op(
    struct({ expiresMs: nullable(u53) }),
    struct({ code: text({ min: 1, max: 64 }), hint: text({ max: 64 }), expiresAtMs: u53 }),
  ),
  "invite.list": op(
    empty,
    struct({
      items: list(
        struct({
          /** First characters of the code. */
          hint: text({ max: 64 }),
          createdAtMs: u53,
          expiresAtMs: u53,
          state: oneOf(["open", "used", "expired", "void"]),
        }),
        { max: 100_000 },
      ),
    }),
  ),
  /** By the whole code or by its first characters, when they name one invite. */
  "invite.revoke": op(struct({ code: text({ min: 1, max: 64 }) }), struct({ revoked: u53 })),
  "user.list": op(
    struct({ after: nullable(id<UserId>()) }),
    struct({
      items: list(
        struct({
          account: accountName,
          userId: id<UserId>(),
          createdAtMs: u53,
          disabled: bool,
          sessions: u53,
          devices: u53,
        }),
        { max: 1_000 },
      ),
      next: nullable(id<UserId>()),
    }),
  ),
  "user.disable": op(byAccount, changed),
  "user.enable": op(byAccount, changed),
  "user.remove": op(byAccount, changed),
} as const satisfies Record<string, { input: Codec<never> | Codec<unknown>; output: Codec<never> | Codec<unknown> }>;

export type ControlName = keyof typeof controls;
export type ControlInput<N extends ControlName> = (typeof controls)[N]["input"] extends Codec<infer T> ? T : never;
export type ControlOutput<N extends ControlName> = (typeof controls)[N]["output"] extends Codec<infer T> ? T : never;

/** True for a name in the table. */
export function isControl(name: string): name is ControlName {
  return Object.hasOwn(controls, name);
}

/** Path of control requests; the name follows. */
export const CONTROL_PATH = "/v1/control/";

/** The control socket of a server directory. */
export function controlSocketPath(dir: string): string {
  return join(dir, "control.sock");
}

const REPLY_MAX = 32 * 1_024 * 1_024;

/** A codec pair of the table, seen from a name that is only known at run time. */
function codecsOf<N extends ControlName>(
  name: N,
): { readonly input: Codec<ControlInput<N>>; readonly output: Codec<ControlOutput<N>> } {
  return controls[name] as unknown as { input: Codec<ControlInput<N>>; output: Codec<ControlOutput<N>> };
}

/**
 * Asks the server that runs on a directory of this machine.
 *
 * @param timeoutMs A check of a large database takes minutes: default 10 minutes.
 * @throws Fault unreachable when no server runs there; the server's own faults; integrity for a malformed answer.
 */
export async function callControl<N extends ControlName>(
  dir: string,
  name: N,
  input: ControlInput<N>,
  timeoutMs = 600_000,
): Promise<ControlOutput<N>> {
  const codecs = codecsOf(name);
  let status: number;
  let body: Uint8Array;
  try {
    const response = await fetch(`http://localhost${CONTROL_PATH}${name}`, {
      method: "POST",
      unix: controlSocketPath(dir),
      body: encodeJson(codecs.input, input),
      headers: { "content-type": "application/json" },
      redirect: "manual",
      verbose: false,
      signal: AbortSignal.timeout(timeoutMs),
    });
    status = response.status;
    body = await response.bytes();
  } catch {
    throw new Fault("unreachable", `no server answers on ${JSON.stringify(controlSocketPath(dir))}`, {
      hint: "is `keyhold serve` running with this --dir?",
    });
  }
  if (body.length > REPLY_MAX) throw new Fault("integrity", "the server's answer is too long");
  try {
    if (status === 200) return decodeJson(codecs.output, body);
  } catch {
    throw new Fault("integrity", "the server's answer is malformed");
  }
  throw errorOf(body);
}

function errorOf(body: Uint8Array): Fault {
  try {
    const { code, message, retryAfterMs } = decodeJson(errorBody, body);
    if (isErrorCode(code)) return new Fault(code, message, retryAfterMs === null ? {} : { retryAfterMs });
  } catch {
    // falls through
  }
  return new Fault("integrity", "the server's answer is malformed");
}
