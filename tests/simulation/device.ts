import { cpSync } from "node:fs";
import { dirname } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { createClient } from "../../src/client/client.ts";
import type { Surroundings } from "../../src/client/model.ts";
import type { Open } from "../../src/client/opened.ts";
import { createSession, type Link } from "../../src/client/session.ts";
import type { VaultBox } from "../../src/client/vaultbox.ts";
import { Fault } from "../../src/errors.ts";
import { newId, type RequestId, type SessionId } from "../../src/ids.ts";
import { channelKeys, frameHead } from "../../src/protocol/channel.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { sealSessionKey } from "../../src/server/accounts.ts";
import type { Seeded } from "../support/seeded.ts";
import { Killed, type VirtualClock } from "./clock.ts";
import type { SimulatedServer } from "./server.ts";
import { openVaultIn, type Template } from "./template.ts";

/** What all devices of a run share. */
export interface Surround {
  readonly template: Template;
  readonly clock: VirtualClock;
  readonly server: SimulatedServer;
  /** How many frames were sent under each request id. */
  readonly sent: Map<RequestId, number>;
  /** Writes into the run's diary. */
  readonly note: (line: string) => void;
  readonly scratch: string;
}

/** A client process: real client code on a vault of its own, over a network that does not keep its promises. */
export interface Device {
  readonly number: number;
  readonly client: KeyholdClient;
  readonly open: Open;
  readonly notices: readonly string[];
  readonly killed: () => boolean;
  /** Directory of its vault, as it was when the process was killed, if it was. */
  directory(): string;
  /** After it nothing of the process answers any more, and what hung ends. */
  bury(): void;
}

/** Milliseconds after which a client believes that no answer comes. */
const PATIENCE_MS = 3_000;

/** Opens a session without a login: the run's own key in the server's row. */
async function openSession(at: Surround, box: VaultBox, link: Link, around: Surroundings) {
  const { server, template, clock } = at;
  const sessionId = newId<SessionId>(around.random);
  const sessionKey = around.random(64);
  const row = {
    sessionId,
    userId: template.userId,
    sealedKey: sealSessionKey(server.ctx, sessionId, template.userId, sessionKey),
    createdAtMs: clock.now(),
    lastUsedMs: clock.now(),
    expiresAtMs: clock.now() + DEFAULTS.sessionAbsoluteMs,
    high: 0,
    window: new Uint8Array(DEFAULTS.replayWindow / 8),
    factor: "none" as const,
  };
  await server.ctx.store.transaction((tx) => tx.putSession(row));
  const keys = channelKeys(sessionKey, link.identity, box.model.owner, sessionId);
  return createSession(link, keys, { sessionId, expiresAtMs: row.expiresAtMs }, around);
}

/** Starts a client process on a vault that lies in `directory`. */
export async function startDevice(at: Surround, number: number, box: VaultBox, random: Seeded): Promise<Device> {
  const { clock, server, template, sent, note, scratch } = at;
  const wind = random.fork();
  const notices: string[] = [];
  let directory = dirname(box.path);
  let dead = false;
  let buried = false;

  /** Here the process may end, with its files as they are. */
  async function mayDie(): Promise<void> {
    if (!dead && wind.chance(server.weather.kill)) {
      dead = true;
      const copy = `${scratch}/device-${number}-${Math.round(clock.now() - template.startMs)}-${wind.int(1e9)}`;
      cpSync(directory, copy, { recursive: true });
      directory = copy;
      note(`device ${number} is killed`);
    }
    if (buried) throw new Killed("killed");
    if (dead) await clock.hang();
  }

  const onTheWay = () => clock.sleep(wind.next() ** 2 * server.weather.delayMs);
  const link: Link = {
    ...template.link,
    async post(operation, contentType, body) {
      await mayDie();
      const frame = typeof body === "string" ? new TextEncoder().encode(body) : body;
      const { requestId } = frameHead(frame);
      sent.set(requestId, (sent.get(requestId) ?? 0) + 1);
      await onTheWay();
      const { weather } = server;
      if (wind.chance(weather.duplicate)) {
        clock.start(async () => {
          await clock.sleep(wind.next() * 200);
          await server.handle(operation, contentType, frame).catch((error: unknown) => {
            if (!(error instanceof Fault)) throw error;
          });
        });
      }
      if (wind.chance(weather.loseRequest)) return lost();
      const reply = await server.handle(operation, contentType, frame);
      await onTheWay();
      if (wind.chance(weather.loseReply)) return lost();
      await mayDie();
      const bytes = typeof reply.body === "string" ? new TextEncoder().encode(reply.body) : reply.body;
      return { status: reply.status, contentType: reply.contentType, body: bytes };
    },
  };
  async function lost(): Promise<never> {
    await clock.sleep(wind.next() * PATIENCE_MS);
    await mayDie();
    throw new Fault("outcome_unknown", "no answer");
  }

  const around: Surroundings = {
    now: clock.now,
    random: (length) => random.bytes(length),
    notice: (text) => notices.push(text),
    async pause(ms) {
      await clock.sleep(ms);
      await mayDie();
    },
  };
  const open: Open = { box, session: await openSession(at, box, link, around), around };
  const place = { profile: "test", server: { url: "https://127.0.0.1:1", pin: "" } };
  return {
    number,
    client: createClient(open, place, async () => undefined),
    open,
    notices,
    killed: () => dead,
    directory: () => directory,
    bury: () => {
      dead = true;
      buried = true;
    },
  };
}

/** The next process of a killed device: it finds what the one before left on the disk. */
export function restartDevice(at: Surround, before: Device, random: Seeded): Promise<Device> {
  const key = new Uint8Array(before.open.box.vault.key);
  return startDevice(at, before.number, openVaultIn(before.directory(), key), random);
}
