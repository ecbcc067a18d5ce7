/**
 * The local client API for calling applications (docs/client.md): open a session, generate, store, retrieve, import,
 * export, audit, close. Import it as `keyhold/client`, in Bun. The command line uses nothing else.
 */

export type { EcdsaScheme, SignatureScheme } from "../crypto/schemes.ts";
export { ecdsaDer } from "../crypto/signature.ts";
export { type ErrorCode, Fault } from "../errors.ts";
export type { PlainItem } from "../formats/index.ts";
export { formatNamed, sniffFormat } from "../formats/index.ts";
export { json } from "../formats/json.ts";
export { agentClient, agentFacts, agentSocket } from "./agent.ts";
export type * from "./api.ts";
export { deleteAccount } from "./closing.ts";
export { initLocal, loginNewDevice, registerAccount } from "./enrol.ts";
export {
  type AccountInput,
  type Home,
  type Kdf,
  type LoggedInClient,
  loginProfile,
  openOffline,
  openProfile,
  realSurroundings,
  type ServerInput,
} from "./home.ts";
export { changePassword } from "./password.ts";
export { listProfiles, type Profile, readProfile } from "./profile.ts";
export { type Renewal, type Renewed, renewAccount } from "./rotate.ts";
