// The API's reference at /docs, drawn by Swagger UI from /openapi.json. A key that the console
// holds for this tab is sent with what is tried out here.

import { currentKey } from "./key_store.js";

window.SwaggerUIBundle({
  domNode: document.getElementById("reference"),
  url: "openapi.json",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  requestInterceptor(request) {
    const key = currentKey();
    if (key) request.headers.Authorization = `Bearer ${key}`;
    return request;
  },
});
