import { readFile } from "node:fs/promises";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { plainEnvironment } from "../wire/environment.ts";
import type { IdentityList } from "./agearchive.ts";
import type { Asks } from "./foreign.ts";
import { contained, type Draft, gather } from "./gathering.ts";
import { type ReadResult, unreadable } from "./item.ts";
import { passDraft } from "./passentry.ts";
import { type PassFile, walkPassTree } from "./passwalk.ts";

const FORMAT = "pass";

/** How many files are decrypted at once; the first one alone, so that the key's passphrase is asked for once. */
const WIDTH = 4;

/** Variables that gpg, its agent and its prompt need. */
const GPG_VARIABLES = [
  "GNUPGHOME",
  "GPG_TTY",
  "DISPLAY",
  "WAYLAND_DISPLAY",
  "XAUTHORITY",
  "DBUS_SESSION_BUS_ADDRESS",
  "TERM",
];

/** Reads the tree of pass, gopass or passage. @throws Fault bad_input, too_large, wrong_password */
export async function readPassTree(source: Uint8Array | string, asks: Asks): Promise<ReadResult> {
  if (typeof source !== "string") throw unreadable(FORMAT, "it is a file, not the directory of a store");
  const { files, lost } = await contained(FORMAT, () => walkPassTree(source));
  const openers = await openersOf(files, asks);
  const drafts: (Draft | null)[] = files.map(() => null);
  try {
    return await gather(FORMAT, async (gathering) => {
      let done = 0;
      const one = async (index: number): Promise<void> => {
        const file = files[index];
        if (!file) return;
        const plain = await openers[file.by](await contentOf(file), nameOf(file));
        drafts[index] = passDraft(file.path, plain);
        asks.progress(++done / files.length);
      };
      await one(0);
      let next = 1;
      let hasFailed = false;
      const worker = async (): Promise<void> => {
        while (!hasFailed && next < files.length) {
          await one(next++).catch((error: unknown) => {
            hasFailed = true;
            throw error;
          });
        }
      };
      const ends = await Promise.allSettled(Array.from({ length: WIDTH }, worker));
      for (const end of ends) if (end.status === "rejected") throw end.reason;
      for (const what of lost) gathering.lose(null, what);
      for (const draft of drafts) if (draft) gathering.add(draft);
    });
  } catch (error) {
    for (const draft of drafts) if (draft && typeof draft.value !== "string") wipe(draft.value);
    throw error;
  } finally {
    openers.close();
  }
}

/** An encrypted file. @throws Fault bad_input where it may not be read */
function contentOf(file: PassFile): Promise<Uint8Array> {
  return readFile(file.file).catch(() => {
    throw unreadable(FORMAT, `"${nameOf(file)}" cannot be opened`, "check who may read it");
  });
}

const nameOf = ({ path }: PassFile): string => path.join("/").replace(/\p{C}+/gu, " ");

interface Openers {
  readonly gpg: (file: Uint8Array, name: string) => Promise<Uint8Array>;
  readonly age: (file: Uint8Array, name: string) => Promise<Uint8Array>;
  close(): void;
}

async function openersOf(files: readonly PassFile[], asks: Asks): Promise<Openers> {
  const gpg = files.some(({ by }) => by === "gpg") ? Bun.which("gpg") : null;
  if (gpg === null && files.some(({ by }) => by === "gpg")) {
    throw new Fault("unsupported", "cannot read this directory as pass: gpg is not installed", {
      hint: "install gnupg",
    });
  }
  const given = files.some(({ by }) => by === "age") ? await asks.identities() : [];
  const identities: IdentityList = [];
  const { identitiesOf } = await import("./agearchive.ts");
  for (const content of given) identities.push(...identitiesOf(content));
  return {
    gpg: (file, name) => throughGpg(gpg ?? "", file, name),
    age: async (file, name) => {
      const { ageDearmour, ageOpen } = await import("./age.ts");
      try {
        return await ageOpen(ageDearmour(file), { identities });
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        throw undecryptable(name, "none of the age keys opens it", error.code === "wrong_password");
      }
    },
    close: () => wipe(...given, ...identities.map((one) => (typeof one === "string" ? undefined : one.key))),
  };
}

function undecryptable(name: string, why: string, isKey: boolean): Fault {
  return new Fault(isKey ? "wrong_password" : "bad_input", `cannot decrypt the entry "${name}"`, {
    why,
    hint: "nothing was imported; see that `pass show` works for it",
  });
}

/**
 * Decrypts by the user's own gpg, which asks for passphrases itself. The file goes in through a pipe and never
 * stands among the arguments; what comes out is bounded, since messages are compressed.
 */
async function throughGpg(gpg: string, file: Uint8Array, name: string): Promise<Uint8Array> {
  const env = plainEnvironment(process.env);
  for (const variable of GPG_VARIABLES) {
    const value = process.env[variable];
    if (value !== undefined) env[variable] = value;
  }
  const child = Bun.spawn([gpg, "--batch", "--quiet", "--no-tty", "--status-fd", "2", "--decrypt"], {
    stdin: file,
    stdout: "pipe",
    stderr: "pipe",
    env,
  });
  const status = text(child.stderr);
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of child.stdout) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > DEFAULTS.fileBytes) {
        child.kill();
        throw new Fault("too_large", `cannot read the entry "${name}": a file has at most ${DEFAULTS.fileBytes} bytes`);
      }
    }
    const code = await child.exited;
    const said = await status;
    if (code !== 0 || !said.includes("[GNUPG:] DECRYPTION_OKAY")) throw undecryptable(name, ...reasonOf(said));
    const plain = new Uint8Array(size);
    let at = 0;
    for (const chunk of chunks) {
      plain.set(chunk, at);
      at += chunk.length;
    }
    return plain;
  } finally {
    wipe(...chunks);
  }
}

/** What gpg says on its status channel (doc/DETAILS), at most 64 KiB of it. */
async function text(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let all = "";
  for await (const chunk of stream) if (all.length < 65_536) all += decoder.decode(chunk, { stream: true });
  return all;
}

function reasonOf(said: string): [why: string, isKey: boolean] {
  if (said.includes("NO_SECKEY")) return ["gpg has no secret key for it", false];
  // a key that is there, and yet no session key was found with it
  if (said.includes("ENC_TO") && !said.includes("DECRYPTION_INFO")) {
    return ["gpg got no passphrase for the key, or a wrong one", true];
  }
  return ["gpg could not decrypt it", false];
}
