// Shows the description of the HTTP interface. validatorUrl is null because the default asks a public server whether the description is valid.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/schema/openapi.json",
    dom_id: "#interface",
    validatorUrl: null,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    requestSnippetsEnabled: true,
    tryItOutEnabled: false,
  });
});
