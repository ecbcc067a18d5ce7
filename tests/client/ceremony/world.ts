import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CeremonyPart, createCeremonyClient } from "../../../src/client/ceremony/index.ts";
import type { CeremonyClient, CeremonyInfo, CeremonyInviteInfo } from "../../../src/client/ceremonyapi.ts";
import type { connect } from "../../../src/client/login.ts";
import { newModel } from "../../../src/client/model.ts";
import type { Open } from "../../../src/client/opened.ts";
import { createVaultFile } from "../../../src/client/vaultbox.ts";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { enclaveOperations } from "../../../src/enclave/api.ts";
import { createEnclave } from "../../../src/enclave/enclave.ts";
import { openJournal } from "../../../src/enclave/journal.ts";
import { enclaveKeys } from "../../../src/enclave/keys.ts";
import { Fault } from "../../../src/errors.ts";
import { newId, type UserId } from "../../../src/ids.ts";
import type { OutputSpec } from "../../../src/protocol/ceremony/model.ts";
import { KDF } from "../../../src/protocol/defaults.ts";
import { createVault } from "../../../src/protocol/vault.ts";
import type { KeyStoreSite } from "../../../src/server/ceremony/service.ts";
import { createKeyStore } from "../../../src/server/keystore.ts";
import { type Codec, decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { type OperationName, operations } from "../../../src/wire/operations.ts";
import { pinOf } from "../../../src/wire/pin.ts";
import {
  type Middle,
  passwordOf,
  random,
  registerDevice,
  startTestServer,
  type TestServer,
  testSurroundings,
} from "../../support/harness.ts";

/* Servers with a key store in this process, and vaults that know no server or have an account at one. */

export interface Keeper {
  readonly server: TestServer;
  readonly url: string;
  readonly pin: string;
  /** Key of its enclave, to lie with. */
  readonly enclave: Signer;
  /** Sees and may replace what goes over the links of this server; null for honest ones. */
  middle: Middle | null;
  sweep(): Promise<void>;
  rotate(): Promise<unknown>;
}

/** One person with a vault of her own. */
export interface Person {
  readonly name: string;
  readonly client: CeremonyClient;
  readonly open: Open;
  readonly notices: string[];
  /** The same vault in a process that knows nothing but the file. */
  again(): Person;
}

export interface World {
  /** Finds the servers of this world. */
  readonly reach: typeof connect;
  keeper(name?: string): Promise<Keeper>;
  /** A vault without any account. */
  local(name: string): Promise<Person>;
  /** A vault with an account at a server. */
  account(name: string, at: Keeper): Promise<Person>;
  end(): Promise<void>;
}

const encoder = new TextEncoder();
const through = <T>(codec: unknown, value: T): T =>
  decodeJson(codec as Codec<T>, encoder.encode(encodeJson(codec as Codec<T>, value)));

export function world(): World {
  const keepers: Keeper[] = [];
  const ends: (() => unknown)[] = [];
  const parts: CeremonyPart[] = [];

  const reach: typeof connect = async (server) => {
    const keeper = keepers.find(({ url }) => url === server.url);
    if (!keeper) throw new Fault("unreachable", "there is no such server");
    if (keeper.pin !== server.pin) throw new Fault("pin_mismatch", "this is another server than the pinned one");
    return { link: keeper.server.link("127.0.0.1", middleOf(keeper)), server: { ...server, caPem: "pem" } };
  };

  const middleOf =
    (keeper: Keeper): Middle =>
    (operation, body, forward) =>
      keeper.middle ? keeper.middle(operation, body, forward) : forward(operation, body);

  function person(name: string, open: Open, place: Keeper | null, notices: string[]): Person {
    const part = createCeremonyClient(open, place && { url: place.url, pin: place.pin }, { reach });
    parts.push(part);
    return {
      name,
      client: part.calls,
      open,
      notices,
      again: () => person(name, { ...open, box: { ...open.box } }, place, notices),
    };
  }

  return {
    reach,
    async keeper(name = "one") {
      const directory = mkdtempSync(join(tmpdir(), "keyhold-ceremonies-"));
      const journal = join(directory, "journal");
      writeFileSync(journal, "", { mode: 0o600 });
      const keys = await enclaveKeys(random(32));
      let site: KeyStoreSite | undefined;
      let service: ReturnType<typeof createKeyStore> | undefined;
      const server = await startTestServer({
        keyStore(ctx, identity) {
          const enclave = createEnclave({ keys, journal: openJournal(journal, keys.journalKey), now: ctx.now, random });
          site = {
            ctx,
            identity,
            enclave: {
              async call(operation, input) {
                const shape = enclaveOperations[operation];
                const output = await enclave.handle(operation, through(shape.input, input) as never);
                return through(shape.output, output) as never;
              },
            },
            notify: () => undefined,
          };
          service = createKeyStore(site);
          return service;
        },
      });
      if (!service) throw new Error("no key store");
      const keyStore = service;
      const keeper: Keeper = {
        server,
        url: `https://${name}.test`,
        pin: pinOf(server.ctx.keys.identity),
        enclave: keys.signer,
        middle: null,
        sweep: () => keyStore.sweep(),
        rotate: async () => keyStore.rotate(),
      };
      keepers.push(keeper);
      ends.push(async () => {
        await keyStore.close();
        await server.close();
        rmSync(directory, { recursive: true, force: true });
      });
      return keeper;
    },
    async local(name) {
      const notices: string[] = [];
      const around = testSurroundings(notices);
      const directory = mkdtempSync(join(tmpdir(), "keyhold-local-"));
      ends.push(() => rmSync(directory, { recursive: true, force: true }));
      const vault = await createVault(passwordOf("local"), { cost: KDF.test, allowTestKdf: true }, random);
      const model = newModel(newId<UserId>(random), random(32), null);
      const box = { path: join(directory, "test.vault"), vault, model };
      await createVaultFile(box, around);
      return person(name, { box, session: null, around }, null, notices);
    },
    async account(name, at) {
      const device = await registerDevice(at.server.link("127.0.0.1", middleOf(at)), name, `password of ${name}`);
      ends.push(() => device.end());
      return person(name, device.open, at, device.notices);
    },
    async end() {
      for (const part of parts.splice(0)) part.end();
      for (const end of ends.splice(0).reverse()) await end();
    },
  };
}

export const otp = { algorithm: "SHA1", digits: 6, issuer: "test", label: "door" } as const;
export const TOTP: OutputSpec = { kind: "totp", ...otp, period: 30 };
export const HOTP: OutputSpec = { kind: "hotp", ...otp };

type OpenInput = Parameters<CeremonyClient["ceremonyOpen"]>[0];

/** What an organiser asks for, with a seat by invite for each name. */
export const wish = (names: readonly string[], change: Partial<OpenInput> = {}): OpenInput => ({
  name: "door",
  purpose: "a test",
  output: TOTP,
  policy: { collect: "organiser", quorum: 0 },
  seats: names.map((name) => ({ name, account: null })),
  minimum: null,
  commitMs: 3_600_000,
  revealMs: 3_600_000,
  again: null,
  replace: false,
  ...change,
});

export const FUNCTIONS = ["hkdf-sha256", "hkdf-sha512", "hmac-drbg", "argon2id"] as const;

export const joinWith = (invite: CeremonyInviteInfo | undefined, at = 0) => ({
  invite: invite?.invite ?? "",
  ceremony: null,
  function: FUNCTIONS[at % FUNCTIONS.length] ?? "hkdf-sha256",
  mixed: [],
  suite: at % 2 === 0 ? ("hpke" as const) : ("rsa-oaep" as const),
});

/** Everyone looks in turn until the ceremony is over. */
export async function untilOver(people: readonly Person[], ceremony: string): Promise<CeremonyInfo> {
  for (let round = 0; round < 2_000; round++) {
    for (const { client } of people) {
      const info = await client.ceremonyAdvance({ ceremony });
      if (info.status === "stored" || info.status === "aborted") return info;
    }
    await Bun.sleep(2);
  }
  throw new Error("the ceremony does not end");
}

/** A middle that alters what one operation answers; `null` leaves it. */
export function meddling<N extends OperationName>(name: N, change: (output: never) => unknown): Middle {
  return async (operation, body, forward) => {
    const reply = await forward(operation, body);
    if (operation !== name || reply.status !== 200) return reply;
    const codec = operations[name].output as never;
    const bytes = typeof reply.body === "string" ? encoder.encode(reply.body) : reply.body;
    const output = change(decodeJson(codec, bytes) as never);
    return output === null ? reply : { ...reply, body: encodeJson(codec, output as never) };
  };
}

/** The server's own key, to lie with. */
export const identityOf = ({ server }: Keeper) => server.ctx.log.signers[0] ?? signerFromSeed(random(32));
