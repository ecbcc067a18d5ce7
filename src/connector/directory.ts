import { join } from "node:path";
import { heldServer } from "../client/federation/held.ts";
import { makePrivateDirectory, readPrivateFile, replacePrivateFile } from "../client/privatefile.ts";
import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { FEDERATION_SECRET_BYTES } from "../protocol/federation/credentials.ts";
import { type Codec, decodeJson, encodeJson, list, nullable, type Of, struct, uint } from "../wire/codec.ts";
import { serverPin, serverUrl, signedManifest } from "../wire/federation/records.ts";
import { keyringName } from "../wire/keyring/records.ts";
import { hash32 } from "../wire/records.ts";

/** Places of one registry at most, and epochs of the federation. */
const URLS_MAX = 8;
const EPOCHS_MAX = 1_024;
const CONFIG_MAX = 4 * 1_024 * 1_024;

/** What `connector.json` holds; nothing in it is secret (docs/protocol.md §9.6). */
export const connectorConfig = struct({
  version: uint(1, 1),
  /** Proposed name of the party. */
  name: keyringName,
  registry: struct({
    /** Places of the one registry; the first one is preferred. */
    urls: list(serverUrl, { min: 1, max: URLS_MAX }),
    pin: serverPin,
    /** Its Ed25519 identity, which the pin names; null before first contact. */
    identity: nullable(hash32),
    held: heldServer,
  }),
  server: struct({ url: serverUrl, pin: serverPin, index: uint(255, 1), held: heldServer }),
  /** Of the federation that the own server belongs to: verified, each by the one before it; the newest last. */
  manifests: list(signedManifest, { min: 1, max: EPOCHS_MAX }),
});

export type ConnectorConfig = Of<typeof connectorConfig>;

/** Files of a connector's directory. */
export const filesOf = (dir: string) => ({
  key: join(dir, "connector.key"),
  config: join(dir, "connector.json"),
  outbox: join(dir, "outbox.db"),
});

const codec: Codec<ConnectorConfig> = connectorConfig;

/** What the directory's `connector.json` says; null where there is none. @throws Fault corrupt, denied */
export function readConfig(dir: string): ConnectorConfig | null {
  const { config } = filesOf(dir);
  const bytes = readPrivateFile(config, { maxBytes: CONFIG_MAX, loose: "tighten" });
  if (bytes === null) return null;
  try {
    return decodeJson(codec, bytes);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("corrupt", `"${config}" is not a connector's`, { why: error.message });
  }
}

/** Puts `connector.json` in place whole. @throws Fault storage, denied */
export function writeConfig(dir: string, config: ConnectorConfig): void {
  replacePrivateFile(filesOf(dir).config, new TextEncoder().encode(`${encodeJson(codec, config)}\n`));
}

/** The config of a directory that `connector init` has made. @throws Fault not_found, corrupt, denied */
export function demandConfig(dir: string): ConnectorConfig {
  const config = readConfig(dir);
  if (config !== null) return config;
  throw new Fault("not_found", `there is no connector in ${JSON.stringify(dir)}`, {
    hint: "keyhold connector init --dir DIR --registry URL#PIN --server URL#PIN",
  });
}

/** The secret of a connector, 32 bytes, the caller's to wipe; null where none was drawn. @throws Fault corrupt, denied */
export function readSecret(dir: string): Uint8Array | null {
  const { key } = filesOf(dir);
  const secret = readPrivateFile(key, { maxBytes: FEDERATION_SECRET_BYTES, loose: "refuse" });
  if (secret !== null && secret.length !== FEDERATION_SECRET_BYTES)
    throw new Fault("corrupt", `"${key}" does not hold a connector's secret`);
  return secret;
}

/** Makes the directory (0700) and draws its secret once; the caller wipes it. @throws Fault denied, storage, corrupt */
export function makeDirectory(dir: string, random: RandomSource): Uint8Array {
  makePrivateDirectory(dir);
  const known = readSecret(dir);
  if (known !== null) return known;
  const secret = random(FEDERATION_SECRET_BYTES);
  replacePrivateFile(filesOf(dir).key, secret);
  return secret;
}

/** The secret of a directory that `connector init` has made; the caller wipes it. @throws Fault not_found, corrupt, denied */
export function demandSecret(dir: string): Uint8Array {
  const secret = readSecret(dir);
  if (secret !== null) return secret;
  throw new Fault("not_found", `the secret of the connector in ${JSON.stringify(dir)} is gone`, {
    hint: "restore connector.key from a backup, or make another connector",
  });
}
