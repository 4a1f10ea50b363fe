// Which subject a method trains under a plan.

import { adapterSubject } from './adapter-subject.ts'
import type { Method } from './methods/method.ts'
import type { Subject, SubjectSetup } from './subject.ts'

/** What the method trains: what it says itself, every weight, or an adapter. */
export function subjectOf(method: Method, setup: SubjectSetup): Subject {
  if ('subject' in method) return method.subject(setup)
  if (setup.plan.adapter !== 'none') return adapterSubject(method, setup)
  if (!method.whole) throw new Error(`The method '${method.name}' trains adapters alone.`)
  return method.whole(setup)
}
