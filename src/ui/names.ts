import { agentClient, agentFacts, agentSocket } from "../client/agent.ts";
import { defaultProfile, listProfiles, readProfile } from "../client/profile.ts";
import { directories } from "./paths.ts";
import { writeAll } from "./process.ts";
import { homeOf } from "./session.ts";
import { plain } from "./text.ts";

/** A shell waits for it while somebody types. */
const PATIENCE_MS = 2_000;

/**
 * `keyhold __names secret|reference|profile|ceremony [PROFILE]`: names for the shells' completion, one a line. Those of secrets
 * come from a running agent alone; without one, and for whatever fails, there are none. Nothing is asked or said.
 */
export async function namesMain([kind = "", wanted = ""]: readonly string[]): Promise<number> {
  const late = new Promise<readonly string[]>((resolve) => setTimeout(() => resolve([]), PATIENCE_MS));
  const names = await Promise.race([found(kind, wanted).catch(() => []), late]);
  // a name that would not show as it is, or take more than a line, is typed by hand
  const lines = names.filter((name) => plain(name) === name).map((name) => `${name}\n`);
  writeAll(1, new TextEncoder().encode(lines.join("")));
  return 0;
}

async function found(kind: string, wanted: string): Promise<readonly string[]> {
  const dirs = directories(process.env);
  const { profiles } = homeOf({ dirs });
  if (kind === "profile") return listProfiles(profiles);
  const name = wanted || process.env["KEYHOLD_PROFILE"] || (defaultProfile(profiles) ?? "default");
  const profile = readProfile(profiles, name);
  if (profile === null || profile.loggedOut) return [];
  const socket = agentSocket(dirs.runtime, profile.name);
  if ((await agentFacts(socket)) === undefined) return [];
  const client = agentClient(socket, () => undefined);
  if (kind === "ceremony") return [...new Set((await client.ceremonies()).map((one) => one.name))];
  const listed = await client.list({
    prefix: null,
    search: null,
    tag: null,
    fresh: false,
  });
  const names = listed.items.map((item) => item.name);
  return kind === "reference" ? names.map(reference) : names;
}

function reference(name: string): string {
  return `kh://${name.split("/").map(encodeURIComponent).join("/")}`;
}
