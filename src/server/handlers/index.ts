import { type OperationName, operations, type SessionOperation, type TokenOperation } from "../../wire/operations.ts";
import type {
  AnonymousHandler,
  AnonymousOperation,
  FederatedAnonymousOperation,
  FederatedOperation,
  HouseOperation,
  KeyStoreAnonymousOperation,
  KeyStoreOperation,
  KeyStoreTokenOperation,
  RegistryAnonymousOperation,
  RegistryOperation,
  SessionHandler,
} from "../context.ts";
import { addDevice, changePassword, reregister, startPassword } from "./account.ts";
import { adoptAccount } from "./adopt.ts";
import { readAudit } from "./audit.ts";
import { closedAccount, deleteAccount } from "./close.ts";
import { bringFactor, disableFactor, enableFactor, replaceCodes, showFactor } from "./factor.ts";
import { setKit } from "./kit.ts";
import { openLink, takeLink } from "./link.ts";
import { latestCheckpoint, proveLogged } from "./log.ts";
import { finishLogin, startLogin } from "./login.ts";
import { getParcel, putParcel } from "./parcel.ts";
import { finishRecovery, proveRecovery, startRecovery } from "./recover.ts";
import { finishRegistration, startRegistration } from "./register.ts";
import { listWraps, replaceWraps, rotateAccount } from "./rotate.ts";
import { commitSecrets, getSecrets, reserveSecrets, secretHistory } from "./secret.ts";
import { checkSession, closeSession, listSessions } from "./session.ts";
import { syncState } from "./sync.ts";

/** Every operation of the house without a session; a missing one does not compile. */
export const anonymousHandlers: { readonly [N in AnonymousOperation]: AnonymousHandler<N> } = {
  "server.statement": async (ctx) => ctx.statement(),
  "account.register.start": startRegistration,
  "account.register": finishRegistration,
  "account.recover.start": startRecovery,
  "account.recover.prove": proveRecovery,
  "account.recover": finishRecovery,
  "account.device.accept": takeLink,
  "account.closed": closedAccount,
  "log.checkpoint": latestCheckpoint,
  "session.login.start": startLogin,
  "session.login": finishLogin,
};

/** Every operation of the house in a session; a missing one does not compile. Federated ones: FederationService. */
export const sessionHandlers: { readonly [N in HouseOperation]: SessionHandler<N> } = {
  "session.check": checkSession,
  "session.list": listSessions,
  "session.close": closeSession,
  "account.device.add": addDevice,
  "account.password.start": startPassword,
  "account.password": changePassword,
  "account.reregister": reregister,
  "account.rotate": rotateAccount,
  "account.wraps": listWraps,
  "account.rewrap": replaceWraps,
  "account.delete": deleteAccount,
  "account.adopt": adoptAccount,
  "account.kit": setKit,
  "account.parcel": getParcel,
  "account.parcel.put": putParcel,
  "session.factor": bringFactor,
  "account.factor": showFactor,
  "account.factor.enable": enableFactor,
  "account.factor.codes": replaceCodes,
  "account.factor.disable": disableFactor,
  "account.device.link": openLink,
  "log.proof": proveLogged,
  "state.sync": syncState,
  "secret.list": syncState,
  "secret.reserve": reserveSecrets,
  "secret.generate": commitSecrets("secret.generate"),
  "secret.store": commitSecrets("secret.store"),
  "secret.import": commitSecrets("secret.import"),
  "secret.update": commitSecrets("secret.update"),
  "secret.restore": commitSecrets("secret.restore"),
  "secret.remove": commitSecrets("secret.remove"),
  "secret.purge": commitSecrets("secret.purge"),
  "secret.get": getSecrets,
  "secret.export": getSecrets,
  "secret.history": secretHistory,
  "audit.list": readAudit,
  "audit.verify": readAudit,
  "audit.export": readAudit,
};

/** True for an operation that needs a session. */
export function needsSession(name: OperationName): name is SessionOperation {
  return operations[name].auth === "session";
}

/** True for an operation that a program calls with a token. */
export function needsToken(name: OperationName): name is TokenOperation {
  return operations[name].auth === "token";
}

/** True for an operation of the server's role in federations. */
export function isFederated(name: OperationName): name is FederatedOperation | FederatedAnonymousOperation {
  return name.startsWith("federation.");
}

/** True for an operation of ceremonies or of the distribution server. */
export function isKeyStore(
  name: OperationName,
): name is KeyStoreOperation | KeyStoreAnonymousOperation | KeyStoreTokenOperation {
  return /^(ceremony|otp)\./.test(name);
}

/** True for an operation of the registry of workspaces and keyrings. */
export function isRegistry(name: OperationName): name is RegistryOperation | RegistryAnonymousOperation {
  return /^(workspace|keyring|party)\./.test(name);
}
