// Errors in plain words: what happened, what to do, and what the agent said.

import { knows, t } from "./i18n.js";

/** Codes that mean the same to whoever uses the page. */
const SAME = {
  EngineBusy: "QueueFull",
  Busy: "QueueFull",
  ShuttingDown: "EngineUnavailable",
  EngineFailed: "EngineUnavailable",
  GpuBroken: "EngineDied",
  EngineStalled: "EngineDied",
  EngineLostPrompt: "EngineDied",
  InstanceLost: "EngineDied",
  TaskTakenOver: "EngineDied",
  EngineUnreachable: "EngineUnavailable",
  NotDelivered: "EngineUnavailable",
  InputNotFetched: "InvalidInput",
  InputForbidden: "InvalidInput",
  BodyTooLarge: "InputTooLarge",
  AsyncBodyTooLarge: "InputTooLarge",
  OutputCorrupt: "NoOutput",
  OutputMissing: "NoOutput",
  InvalidJson: "InvalidWorkflow",
  ObjectStoreUnavailable: "StoreUnavailable",
  TaskNotFound: "OutputNotFound",
};

/** {code, title, advice, detail, where} of a Failure or of a record's error. */
export function explain(error) {
  const facts = error.facts ?? error;
  const code = error.code ?? "InternalError";
  const key = SAME[code] ?? code;
  const title = knows(`error.${key}`) ? t(`error.${key}`) : t("error.other");
  const advice = knows(`advice.${key}`) ? t(`advice.${key}`) : "";
  const where = [facts.node_title, facts.class_type].filter((each) => typeof each === "string" && each).join(" · ");
  return { code, title, advice, where, detail: typeof error.detail === "string" ? error.detail : "" };
}
